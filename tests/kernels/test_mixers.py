"""The cores that mix the whole window, filter (FMLP-Rec) and bsarec: equations and reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lares_kernels import CoreConfig, RecurrentCore, explain, use_backend
from lares_kernels.cuda.plan import SERVES
from lares_kernels.reference.mixing import circular_filter, fourier_basis, low_pass, rescale_bands
from lares_kernels.registry.backends import verify
from lares_kernels.spec.call import Request
from lares_kernels.triton.backend import TritonBackend
from tests.kernels.problems import make_core, random_loss, relative

FILTER = CoreConfig(d_model=16, n_heads=2, d_ff=24, n_layers=2, mixer="filter", window=9)
BSAREC = replace(FILTER, mixer="bsarec")
LENGTHS = torch.tensor([1, 5, 3, 9])


def run(core: RecurrentCore, hidden: torch.Tensor, backend: str, **options):
    """(outputs, gradients of hidden and every parameter) of a random function of all outputs."""
    options = {"return_trajectory": True, "return_state": True, **options}
    with use_backend(backend):
        out = core(hidden, LENGTHS, **options)
    parts = [part for part in (out.trajectory, out.state) if part is not None]
    return parts, torch.autograd.grad(random_loss(*parts), [hidden, *core.parameters()])


def hidden_of(config: CoreConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (len(LENGTHS), config.window, config.d_model)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_products_with_constant_matrices_are_the_fourier_transform(length: int) -> None:
    x = torch.randn(3, length, 4, dtype=torch.float64)
    weight = torch.randn(length // 2 + 1, 4, 2, dtype=torch.float64)
    scale = torch.randn(4, dtype=torch.float64)
    spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
    product = spectrum * torch.view_as_complex(weight)
    wanted = torch.fft.irfft(product, n=length, dim=1, norm="ortho")
    torch.testing.assert_close(circular_filter(x, weight), wanted)
    for cutoff in (1, 3, 4, 99):
        kept = spectrum.clone()
        kept[:, cutoff // 2 + 1 :] = 0
        low = torch.fft.irfft(kept, n=length, dim=1, norm="ortho")
        wanted = low + scale.square() * (x - low)
        torch.testing.assert_close(rescale_bands(x, scale, cutoff), wanted)


@pytest.mark.parametrize("backend", ["equations", "reference"])
@pytest.mark.parametrize("config", [FILTER, BSAREC], ids=["filter", "bsarec"])
@pytest.mark.parametrize(
    "where", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")]
)
def test_matrices_that_are_kept_serve_later_calls(backend: str, config: CoreConfig, where) -> None:
    core, hidden = make_core(config), hidden_of(config)
    wanted = run(core, hidden, backend)
    fourier_basis.cache_clear()
    low_pass.cache_clear()
    with where():
        fourier_basis(config.window, torch.float64, torch.device("cpu"))
        low_pass(config.window, config.cutoff, torch.float64, torch.device("cpu"))
    found = run(core, hidden, backend)
    for mine, theirs in zip((*found[0], *found[1]), (*wanted[0], *wanted[1]), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("config", [FILTER, BSAREC], ids=lambda c: c.mixer)
@pytest.mark.usefixtures("poisoned_memory")
def test_handwritten_backward_equals_autograd(
    config: CoreConfig, dropout: float, adapter: str
) -> None:
    config = replace(config, adapter=adapter, dropout=dropout, attn_dropout=dropout / 2)
    core, hidden = make_core(config), hidden_of(config)
    steps = 3 if config.is_recurrent else 1
    expected_out, expected = run(core, hidden, "equations", num_steps=steps)
    out, found = run(core, hidden, "reference", num_steps=steps)
    assert all(map(torch.equal, out, expected_out))
    scale = max(g.norm() for g in expected) * 1e-13
    for what, g, wanted in zip(
        ["hidden", *dict(core.named_parameters())], found, expected, strict=True
    ):
        assert (g - wanted).norm() <= 1e-12 * wanted.norm() + scale, what


@pytest.mark.parametrize("rollouts", [1, 3])
@pytest.mark.parametrize("window", [9, 14])
@pytest.mark.parametrize("config", [FILTER, BSAREC], ids=lambda c: c.mixer)
def test_depths_and_rollouts(config: CoreConfig, window: int, rollouts: int) -> None:
    config = replace(config, window=window, dropout=0.5, attn_dropout=0.5)
    core, hidden = make_core(config), hidden_of(config)
    depths = torch.tensor([[2, 1, 3], [1, 1, 2], [4, 4, 1], [3, 2, 1]])[:, :rollouts]
    options = {"num_steps": depths, "rollouts": rollouts, "seed": 5}
    _, expected = run(core, hidden, "equations", **options)
    outputs, found = run(core, hidden, "reference", **options)
    assert max(relative(g, wanted) for g, wanted in zip(found, expected, strict=True)) < 1e-11
    # A sequence alone, with the same number, is the same sequence.
    alone = core(
        hidden[2:3],
        LENGTHS[2:3],
        num_steps=depths[2:3],
        rollouts=rollouts,
        seed=5,
        sequence_ids=torch.tensor([2]),
        return_trajectory=True,
    )
    steps = int(depths[2].max())
    assert relative(alone.trajectory[0], outputs[0][2][..., :steps, :]) < 1e-12


@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_gradcheck_with_dropout_on(mixer: str, program: str) -> None:
    config = CoreConfig(
        2, 1, 3, 1, adapter="gate", dropout=0.25, attn_dropout=0.5, mixer=mixer, window=3
    )
    core = make_core(config)
    hidden = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    names = list(dict(core.named_parameters()))

    def function(hidden: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = torch.func.functional_call(
            core,
            dict(zip(names, tensors, strict=True)),
            (hidden, torch.tensor([3, 2])),
            {"num_steps": 2, "return_trajectory": True},
        )
        return out.last, out.trajectory

    inputs = (hidden, *(p.detach().clone().requires_grad_() for p in core.parameters()))
    assert torch.autograd.gradcheck(function, inputs, atol=1e-7, rtol=1e-5)


def test_padding_is_part_of_the_computation() -> None:
    for config in (FILTER, BSAREC):
        core, hidden = make_core(config), hidden_of(config)
        before = core(hidden, LENGTHS, num_steps=2).last
        changed = hidden.detach().clone()
        changed[1, 7] *= -1.0  # padding of a sequence of 5
        after = core(changed, LENGTHS, num_steps=2).last
        assert relative(after[1], before[1]) > 1e-4
        assert torch.equal(after[0], before[0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CoreConfig.window is 0; it must be a whole number"):
        CoreConfig(mixer="filter")
    with pytest.raises(ValueError, match=r"CoreConfig.window is 9; mixer='attention' takes"):
        CoreConfig(window=9)
    with pytest.raises(ValueError, match=r"CoreConfig.norm is 'pre'; mixer='bsarec' is defined"):
        replace(BSAREC, norm="pre")
    with pytest.raises(ValueError, match=r"CoreConfig.band_share is 1.5"):
        replace(BSAREC, band_share=1.5)
    core = RecurrentCore(FILTER)
    packed = r"hidden has shape \(18, 16\); mixer='filter' mixes the whole padded window"
    with pytest.raises(ValueError, match=packed):
        core(torch.zeros(18, 16), cu_seqlens=torch.tensor([0, 9, 18]))
    with pytest.raises(ValueError, match=r"must be \(B, 9, 16\), with lengths"):
        core(torch.zeros(2, 8, 16))


def test_explain_and_who_refuses() -> None:
    for config in (FILTER, BSAREC):
        with use_backend("reference"):
            assert "36 packed tokens of 4 sequences" in explain(config, LENGTHS, 3).plan
        assert verify(TritonBackend(), Request(config, "cuda", torch.float32)) is None
        said = SERVES.reason(Request(replace(config, d_model=32), "cuda", torch.bfloat16))
        assert said == f"mixer is {config.mixer!r}; it serves attention"
    with pytest.raises(ValueError, match="sequence 1 has length 10, more than the 9"):
        explain(FILTER, [9, 10])
