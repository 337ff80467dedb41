"""Draws, activations and LayerNorm on the device against noise.py and PyTorch."""

import pytest
import torch
import triton
import triton.language as tl

from lares_kernels.reference.activations import ACTIVATIONS
from lares_kernels.spec import noise
from lares_kernels.spec.choices import Activation
from lares_kernels.spec.seeds import seed_memory
from lares_kernels.triton.kernels import draws, elementwise

CPU = torch.device("cpu")
SEEDS = [0, 1, 2**31, 2**32 - 1, 2**40 + 3, 2**63 - 1, 2**64 - 1]


@triton.jit
def keep_kernel(
    stream,
    position,
    out,
    seed,
    layer,
    step,
    SITE: tl.constexpr,
    PAIR: tl.constexpr,
    THRESHOLD: tl.constexpr,
    PLANES: tl.constexpr,
    R: tl.constexpr,
):
    rows = tl.arange(0, R)
    element = tl.arange(0, 64)[None, :]
    word0, word1, word2, word3 = draws.keep_words(
        tl.load(stream + rows),
        tl.load(position + rows),
        draws.site_word(SITE, layer, step),
        PAIR,
        seed,
        THRESHOLD,
        PLANES,
    )
    at = out + rows[:, None] * 128 + element
    tl.store(at, draws.kept(word0, word1, element).to(tl.int8))
    tl.store(at + 64, draws.kept(word2, word3, element).to(tl.int8))


@triton.jit
def state_kernel(stream, position, out, scale, seed, R: tl.constexpr, D: tl.constexpr):
    rows = tl.arange(0, R)
    state = draws.initial_state(tl.load(stream + rows), tl.load(position + rows), scale, seed, R, D)
    tl.store(out + rows[:, None] * D + tl.arange(0, D)[None, :], state)


@triton.jit
def activation_kernel(
    x, value, slope, N: tl.constexpr, ACTIVATION: tl.constexpr, EXACT: tl.constexpr
):
    at = tl.arange(0, N)
    loaded = tl.load(x + at)
    found, derivative = elementwise.activate_with_slope(loaded, ACTIVATION, EXACT)
    tl.store(value + at, found)
    tl.store(slope + at, derivative)
    tl.store(value + N + at, elementwise.activate(loaded, ACTIVATION, EXACT))


@triton.jit
def norm_kernel(
    x, g, out, g_x, EPS: tl.constexpr, R: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr
):
    cols = tl.arange(0, D)[None, :]
    at = tl.arange(0, R)[:, None] * WIDTH + cols
    real = cols < WIDTH
    rows = tl.load(x + at, mask=real, other=0.0)
    normalised, inverse_std = elementwise.normalise(rows, EPS, D, WIDTH)
    tl.store(out + at, normalised, mask=real)
    g_rows = tl.load(g + at, mask=real, other=0.0)
    back = elementwise.normalise_backward(g_rows, normalised, inverse_std, WIDTH)
    tl.store(g_x + at, back, mask=real)


def addresses(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    stream = torch.randint(2**32, (rows,), generator=generator)
    position = torch.randint(200, (rows,), generator=generator)
    return stream, position


@pytest.fixture(params=["as compiled", "at once"])
def words_of_a_draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws with Triton's function, as kernels for cards do, then with the tests' quicker one."""
    if request.param == "as compiled":
        monkeypatch.setattr(tl, "philox", tl.random.philox)


def as_int32(words: torch.Tensor) -> torch.Tensor:
    return (words - (words >> 31 << 32)).to(torch.int32)


@pytest.mark.usefixtures("words_of_a_draw")
@pytest.mark.parametrize(
    ("rate", "seed"),
    list(zip([0.5, 0.25, 0.1, 0.75, 1 / 256, 255 / 256, 0.5], SEEDS, strict=True)),
)
def test_dropout_decisions_are_the_shared_ones(rate: float, seed: int) -> None:
    stream, position = addresses(16)
    threshold, planes = noise.threshold_and_planes(rate)
    for pair in (0, 1, 3):
        out = torch.empty(16, 128, dtype=torch.int8)
        keep_kernel[(1,)](
            as_int32(stream), as_int32(position), out, seed_memory(seed, CPU), 7, 300, 2, pair,
            threshold, planes, 16,
        )  # fmt: skip
        site = noise.site_word(noise.Site.RESIDUAL, 7, 300)
        wanted = noise.row_keep(stream, position, site, rate, 128, seed, first_block=2 * pair)
        assert torch.equal(out.bool(), wanted)


@pytest.mark.usefixtures("words_of_a_draw")
@pytest.mark.parametrize("seed", SEEDS[::2])
@pytest.mark.parametrize("width", [16, 64])
def test_initial_states_are_the_shared_ones(seed: int, width: int) -> None:
    stream, position = addresses(32)
    out = torch.empty(32, width)
    state_kernel[(1,)](
        as_int32(stream), as_int32(position), out, 1.5, seed_memory(seed, CPU), 32, width
    )
    wanted = noise.initial_state(stream, position, width=width, scale=1.5, seed=seed)
    assert (out - wanted).abs().max() < 1.5e-6


@pytest.mark.parametrize("activation", Activation, ids=Activation.texts())
@pytest.mark.parametrize("exact", [True, False])
def test_activations(activation: Activation, exact: bool) -> None:
    n, name = 1 << 14, activation.text
    x = torch.linspace(-30, 30, n)
    value, slope = torch.empty(2, n), torch.empty(n)
    activation_kernel[(1,)](x, value, slope, n, activation.value, exact)
    wanted = ACTIVATIONS[name].value(x.double())
    bound = 6e-7 if exact or name != "gelu" else 6e-5
    scale = x.double().abs().clamp(min=1.0)
    assert ((value - wanted).abs() / scale).max() < bound
    derivative = ACTIVATIONS[name].derivative(x.double())
    assert (slope - derivative).abs().max() < (2.5e-6 if bound == 6e-7 else 1.2e-4)


@pytest.mark.parametrize("width", [64, 40, 8])
def test_layer_norm(width: int) -> None:
    padded = max(16, triton.next_power_of_2(width))
    x, g = (torch.randn(16, width) for _ in range(2))
    out, g_x = torch.empty(16, width), torch.empty(16, width)
    norm_kernel[(1,)](x + 3.0, g, out, g_x, 1e-12, 16, padded, width)
    exact = (x + 3.0).double().requires_grad_()
    wanted = torch.nn.functional.layer_norm(exact, (width,), eps=1e-12)
    assert (out - wanted).abs().max() < 3e-6
    (g_wanted,) = torch.autograd.grad(wanted, exact, g.double())
    assert (g_x - g_wanted).abs().max() < 1e-5
