"""The fused Triton kernels on a card, against the equations in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lares_kernels import (
    CoreConfig,
    RecurrentCore,
    available_backends,
    explain,
    use_backend,
    warmup,
)
from tests.kernels import test_catalogue_non_finite as catalogue
from tests.kernels.non_finite import VALUES, assert_stays_in_its_sequence, make_problem
from tests.kernels.problems import (
    BACKWARD,
    DEPTHS,
    FORWARD,
    MIXERS,
    VARIANTS,
    exact_problem,
    make_core,
    many_on_a_card,
    name,
    outputs_and_gradients,
)

pytestmark = pytest.mark.gpu

YARDSTICKS = 2.0
PUBLISHED = CoreConfig(dropout=0.5, attn_dropout=0.5)
LENGTHS = [1, 5, 3, 9, 20, 7, 16, 17, 2, 2, 20, 11]


def worst(found: list[Tensor], exact: list[Tensor]) -> float:
    """Greatest relative error; what is next to nothing is measured on the others' scale."""
    floor = 1e-3 * max(float(wanted.norm()) for wanted in exact)
    return max(
        float((mine.double() - wanted).norm()) / max(float(wanted.norm()), floor)
        for mine, wanted in zip(found, exact, strict=True)
    )


def check(
    config: CoreConfig, lengths: list[int], precision: str, scale: float = 0.1, **options: Any
) -> None:
    """fp32 within section 9; other precisions within twice the error of plain PyTorch."""
    core, hidden, sizes = exact_problem(config, lengths, scale, "cuda")
    with use_backend("equations"):
        exact = outputs_and_gradients(core, hidden, sizes, **options)
    core.float()
    asked = "fp32" if precision == "tf32" else precision
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        runs = {}
        for backend in ("equations", "triton"):
            with use_backend(backend):
                runs[backend] = outputs_and_gradients(
                    core, hidden.float(), sizes, precision=asked, **options
                )
    finally:
        torch.set_float32_matmul_precision("highest")
    for kind, limit in enumerate((FORWARD, BACKWARD)):
        if precision != "fp32":
            limit = YARDSTICKS * worst(runs["equations"][kind], exact[kind])
        assert worst(runs["triton"][kind], exact[kind]) <= limit


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_published_core(precision: str, depth: int) -> None:
    check(PUBLISHED, LENGTHS, precision, num_steps=depth)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_every_variant(config: CoreConfig, precision: str) -> None:
    config = replace(config, dropout=0.25, attn_dropout=0.1)
    check(config, LENGTHS, precision, num_steps=3 if config.is_recurrent else 1)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("config", MIXERS, ids=lambda c: f"{c.mixer}-{c.adapter}")
def test_whole_windows(config: CoreConfig, precision: str) -> None:
    config = replace(config, dropout=0.25, attn_dropout=0.1)
    check(config, LENGTHS, precision, num_steps=3 if config.is_recurrent else 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("window", [1, 9, 32, 50, 64])
@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_windows_of_the_published_width(mixer: str, window: int, precision: str) -> None:
    config = replace(PUBLISHED, mixer=mixer, window=window)
    check(config, [window, 1, (window + 1) // 2], precision, num_steps=4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("width", "heads", "inner"), [(8, 1, 1), (24, 3, 20), (40, 5, 70)])
def test_odd_shapes(width: int, heads: int, inner: int, precision: str) -> None:
    config = CoreConfig(width, heads, inner, 2, dropout=0.5, attn_dropout=0.1)
    check(config, [1, 30, 9, 33], precision, num_steps=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("longest", [32, 33, 64])
def test_sequences_as_long_as_a_tile(longest: int, precision: str) -> None:
    check(PUBLISHED, [longest, 3, longest // 2, longest], precision, num_steps=2)


@pytest.mark.parametrize("rollouts", [1, 3])
def test_depths_and_rollouts(rollouts: int) -> None:
    options = {"num_steps": DEPTHS[:, :rollouts].cuda(), "rollouts": rollouts}
    check(PUBLISHED, [4, 9, 1, 30], "fp32", **options)


def test_many_sequences_and_the_same_bits_twice() -> None:
    """More tiles than programs, so that each takes several."""
    core, hidden, lengths, depths = many_on_a_card(9000)
    runs = []
    for backend in ("reference", "triton", "triton"):
        with use_backend(backend):
            runs.append(outputs_and_gradients(core, hidden, lengths, num_steps=depths))
    for kind, limit in enumerate((FORWARD, BACKWARD)):
        assert worst(runs[1][kind], [t.double() for t in runs[0][kind]]) <= limit
        for mine, again in zip(runs[1][kind], runs[2][kind], strict=True):
            assert torch.equal(mine, again)


def test_packed_equals_padded() -> None:
    core = make_core(PUBLISHED, scale=0.1).float().cuda()
    lengths = torch.tensor(LENGTHS, device="cuda")
    hidden = torch.randn(len(LENGTHS), 20, 64, device="cuda")
    rows = torch.cat([row[:n] for row, n in zip(hidden, LENGTHS, strict=True)])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    with use_backend("triton"), torch.no_grad():
        padded = core(hidden, lengths, num_steps=3)
        packed = core(rows, cu_seqlens=offsets, num_steps=3)
    assert torch.equal(padded.last, packed.last)


def test_any_depth_and_batch_after_warmup_without_compiling() -> None:
    from lares_kernels.triton.fused.kernels.backward import backward_kernel
    from lares_kernels.triton.fused.kernels.forward import forward_kernel

    kernels = (forward_kernel, backward_kernel)

    def compiled() -> int:
        return sum(len(k.device_caches[torch.cuda.current_device()][0]) for k in kernels)

    with use_backend("triton"):
        warmup(PUBLISHED, 20)
        before = compiled()
        core = RecurrentCore(PUBLISHED, "cuda")
        for depth, batch, seed in ((1, 1, 0), (5, 1, 1), (7, 16, 2**40), (16, 33, 2**63)):
            hidden = torch.zeros(batch, 20, 64, device="cuda", requires_grad=True)
            core(hidden, num_steps=depth, seed=seed).last.sum().backward()
        assert compiled() == before


def test_no_wait_for_the_card() -> None:
    """A padded call neither reads back nor waits."""
    core = RecurrentCore(PUBLISHED, "cuda")
    hidden = torch.randn(8, 20, 64, device="cuda", requires_grad=True)
    lengths = torch.full((8,), 20, device="cuda")
    with use_backend("triton"):
        core(hidden, lengths, num_steps=2).last.sum().backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            core(hidden, lengths, num_steps=3).last.sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_it_is_chosen() -> None:
    assert explain(PUBLISHED, [20, 7], 4, "cuda").backend == "triton"


@pytest.mark.parametrize(
    "config",
    [
        PUBLISHED,
        replace(PUBLISHED, norm="query", padding="left-zeros", activation="relu"),
        replace(PUBLISHED, mixer="bsarec", window=20),
        replace(PUBLISHED, d_model=144, n_heads=2),  # the layered plan
    ],
    ids=["published", "sasrec", "window", "layered"],
)
@pytest.mark.parametrize("value", ["nan", "card's nan", "-inf"])
def test_a_number_that_is_not_finite_stays_in_its_sequence(config: CoreConfig, value: str) -> None:
    problem = make_problem(config, device="cuda")
    assert_stays_in_its_sequence("triton", problem, "hidden", 1, 1, VALUES[value])


@pytest.mark.parametrize("scores", ["dot", "cosine"])
@pytest.mark.parametrize("value", ["nan", "card's nan", "-inf"])
def test_an_item_that_is_not_finite_stays_in_the_rows_that_see_it(scores: str, value: str) -> None:
    hides = catalogue.HIDES
    clean = catalogue.catalogue(scores, hides).to(torch.float32)
    spoilt = catalogue.broken(clean, VALUES[value])
    found, wanted = (problem.on("cuda").results("triton") for problem in (spoilt, clean))
    catalogue.assert_same(found, wanted, hides.cuda())
    exact = spoilt.to(torch.float64).results("equations")
    catalogue.assert_seen({name: tensor.cpu() for name, tensor in found.items()}, exact)
    ranks, ids, _ = catalogue.order(spoilt.on("cuda"), "triton")
    for mine, theirs in zip((ranks, ids), catalogue.order_by_hand(spoilt), strict=True):
        assert torch.equal(mine.cpu(), theirs)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_a_captured_step_draws_anew_at_each_replay(backend: str) -> None:
    """By the seed in memory, as without a graph; by one of the GPU's where none is given."""
    if available_backends()[backend] != "usable":
        pytest.skip(available_backends()[backend])
    core = RecurrentCore(PUBLISHED, "cuda")
    hidden = torch.randn(8, 20, 64, device="cuda", requires_grad=True)
    memory = torch.zeros((), dtype=torch.int64, device="cuda")

    def step(seed: Any) -> list[Tensor]:
        last = core(hidden, num_steps=2, seed=seed, precision="bf16").last
        return [last, *torch.autograd.grad(last.float().square().sum(), [hidden])]

    with use_backend(backend):
        for given in (memory, None):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    step(given)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = step(given)
            found = []
            for number in (3, 2**40, 7):
                memory.fill_(number)
                graph.replay()
                found.append([each.clone() for each in out])
                if given is not None:
                    for mine, wanted in zip(found[-1], step(number), strict=True):
                        assert torch.equal(mine, wanted)
            for first, second in zip(found[0], found[1], strict=True):
                assert not torch.equal(first, second)


def test_compiled_steps_in_cuda_graphs_draw_anew() -> None:
    core = RecurrentCore(PUBLISHED, "cuda")
    hidden = torch.randn(8, 20, 64, device="cuda")
    compiled = torch.compile(core, mode="reduce-overhead", fullgraph=True)
    with use_backend("triton"):
        found = [compiled(hidden, num_steps=2).last.detach().clone() for _ in range(5)]
    for number, out in enumerate(found):
        assert all(not torch.equal(out, other) for other in found[:number])
