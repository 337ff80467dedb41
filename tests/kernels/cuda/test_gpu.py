"""The CUDA kernels on a card, against the equations in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, available_backends, explain, use_backend
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
)
from tests.kernels.problems import (
    DEPTHS,
    exact_problem,
    many_on_a_card,
    outputs_and_gradients,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        available_backends()["cuda"] != "usable", reason=available_backends()["cuda"]
    ),
]

PUBLISHED = CoreConfig(dropout=0.5, attn_dropout=0.5)
SMALL = CoreConfig(d_model=32, n_heads=2, d_ff=40, n_layers=1)
# More than any card has multiprocessors: fewer, without dropout or gradients, take the plan for few.
LENGTHS = [1, 5, 3, 9, 20, 7, 16, 17, 2, 2, 20, 11] * 27
YARDSTICKS = 2.0


def outputs(core: RecurrentCore, hidden: Tensor, lengths: Tensor, **options: Any) -> list[Tensor]:
    with torch.no_grad():
        out = core(hidden, lengths, return_trajectory=True, return_state=True, **options)
    return [out.trajectory, out.state]


def worst(found: list[Tensor], exact: list[Tensor]) -> float:
    """Greatest relative error."""
    return max(
        float((mine.double() - wanted).norm() / wanted.norm())
        for mine, wanted in zip(found, exact, strict=True)
    )


def gradients(core: RecurrentCore, hidden: Tensor, lengths: Tensor, **options: Any) -> list[Tensor]:
    """Of a random linear function of trajectory and state, for hidden and every parameter."""
    return outputs_and_gradients(core, hidden, lengths, **options)[1]


def check_gradients(config: CoreConfig, lengths: list[int], precision: str, **options: Any) -> None:
    """Likewise within twice the error; what is next to nothing is measured on the others' scale."""
    core, hidden, sizes = exact_problem(config, lengths, device="cuda")
    with use_backend("equations"):
        exact = gradients(core, hidden, sizes, **options)
    core.float()
    floor = 1e-3 * max(float(g.norm()) for g in exact)
    errors = {}
    for backend in ("equations", "cuda"):
        with use_backend(backend):
            found = gradients(core, hidden.float(), sizes, precision=precision, **options)
        errors[backend] = max(
            float((mine.double() - wanted).norm()) / max(float(wanted.norm()), floor)
            for mine, wanted in zip(found, exact, strict=True)
        )
    assert errors["cuda"] <= YARDSTICKS * errors["equations"]


def require_plan(
    word: str, config: CoreConfig, lengths: list[int], precision: str, **options: Any
) -> None:
    """See that the plan that is meant is the one that runs."""
    deepest = int(torch.as_tensor(options.get("num_steps", 1)).max())
    rollouts, drops = options.get("rollouts", 1), config.dropout + config.attn_dropout > 0
    with use_backend("cuda"):
        found = explain(
            config,
            lengths,
            deepest,
            "cuda",
            rollouts=rollouts,
            training=drops,
            precision=precision,
        )
    assert word in found.plan


def check(
    config: CoreConfig, lengths: list[int], precision: str, plan: str = "fused", **options: Any
) -> None:
    """Within twice the error of plain PyTorch in the same precision, by the plan that is meant.

    ``make_core`` leaves a core in training mode, so where it drops it always runs in tiles.
    """
    require_plan(plan, config, lengths, precision, **options)
    core, hidden, sizes = exact_problem(config, lengths, device="cuda")
    with use_backend("equations"):
        exact = outputs(core, hidden, sizes, **options)
    core.float()
    runs = {}
    for backend in ("equations", "cuda"):
        with use_backend(backend):
            runs[backend] = outputs(core, hidden.float(), sizes, precision=precision, **options)
    assert worst(runs["cuda"], exact) <= YARDSTICKS * worst(runs["equations"], exact)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_published_core(precision: str, depth: int) -> None:
    check(PUBLISHED, LENGTHS, precision, num_steps=depth)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_adapter_and_norm(adapter: str, norm: str, dropout: float) -> None:
    config = replace(PUBLISHED, adapter=adapter, norm=norm, dropout=dropout, attn_dropout=dropout)
    check(config, LENGTHS, "bf16", num_steps=3 if config.is_recurrent else 1)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("depth", [1, 4, 12])
def test_gradients_of_the_published_core(precision: str, depth: int) -> None:
    check_gradients(PUBLISHED, LENGTHS, precision, num_steps=depth)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_gradients_of_every_adapter_and_norm(adapter: str, norm: str) -> None:
    config = replace(PUBLISHED, adapter=adapter, norm=norm, dropout=0.25)
    check_gradients(config, LENGTHS, "bf16", num_steps=3 if config.is_recurrent else 1)


@pytest.mark.parametrize(
    ("width", "heads", "inner", "layers"),
    [(32, 1, 64, 8), (64, 1, 70, 2), (64, 2, 70, 1), (64, 8, 96, 3)]
    + [(128, 2, 512, 2), (128, 4, 100, 1), (128, 8, 64, 1)],
)
def test_gradients_of_every_shape(width: int, heads: int, inner: int, layers: int) -> None:
    config = CoreConfig(width, heads, inner, layers, dropout=0.1, attn_dropout=0.1)
    check_gradients(config, [1, 30, 9, 33, 64], "bf16", num_steps=2)


def test_the_same_gradients_twice() -> None:
    core, hidden, lengths, depths = many_on_a_card(3000)
    with use_backend("cuda"):
        first, again = (
            gradients(core, hidden, lengths, num_steps=depths, precision="bf16") for _ in range(2)
        )
    for mine, other in zip(first, again, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_wide_rows_with_dropout(adapter: str, norm: str) -> None:
    config = CoreConfig(128, 2, 512, 2, dropout=0.5, attn_dropout=0.5, adapter=adapter, norm=norm)
    steps = 3 if config.is_recurrent else 1
    check(config, [*LENGTHS, 64], "bf16", num_steps=steps)
    check_gradients(config, [*LENGTHS, 64], "bf16", num_steps=steps)


@pytest.mark.parametrize("activation", ["gelu_tanh", "relu", "silu"])
def test_every_activation(activation: str) -> None:
    check(replace(SMALL, activation=activation), LENGTHS, "fp16", num_steps=2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("width", "heads", "inner", "layers"),
    [(32, 1, 64, 8), (64, 1, 70, 1), (64, 4, 33, 3), (64, 8, 96, 2)]
    + [(128, 2, 512, 2), (128, 8, 64, 1)],
)
def test_every_shape(width: int, heads: int, inner: int, layers: int, precision: str) -> None:
    check(CoreConfig(width, heads, inner, layers), [1, 30, 9, 33] * 80, precision, num_steps=2)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
@pytest.mark.parametrize("lengths", [[20], [1, 64, 33]])
def test_few_sequences(lengths: list[int], adapter: str) -> None:
    """The low-latency plan, weights resident and, where a step is all there is, read from memory."""
    config = CoreConfig(adapter=adapter, norm="pre" if adapter == "gate" else "post")
    for depth in (1, 4) if config.is_recurrent else (1,):
        check(config, lengths, "bf16", "low-latency", num_steps=depth)
    wide = CoreConfig(128, 4, 512, 1, adapter=adapter)
    check(wide, lengths, "fp16", "low-latency", num_steps=1)


@pytest.mark.parametrize("longest", [16, 17, 32, 33, 64, 128])
def test_sequences_as_long_as_a_tile(longest: int) -> None:
    config = replace(PUBLISHED, attn_dropout=0.5 if longest <= 64 else 0.0)
    check(config, [longest, 3, longest // 2, longest], "bf16", num_steps=2)


@pytest.mark.parametrize("lengths", [[30, 70], [1, 65], [40, 88]], ids=str)
def test_longer_sequences_that_begin_anywhere_in_a_tile(lengths: list[int]) -> None:
    for dropout in (0.0, 0.5):
        config = replace(SMALL, dropout=dropout)
        check(config, lengths * 160, "fp16", num_steps=2)
        check_gradients(config, lengths, "fp16", num_steps=2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("value", ["nan", "card's nan", "-inf"])
@pytest.mark.parametrize(
    "config", [PUBLISHED, replace(SMALL, adapter="none", activation="relu")], ids=["large", "small"]
)
def test_a_number_that_is_not_finite_stays_in_its_sequence(
    config: CoreConfig, value: str, precision: str
) -> None:
    problem = make_problem(config, device="cuda")
    assert_stays_in_its_sequence(
        "cuda", problem, "hidden", 1, 1, VALUES[value], precision=precision
    )
    for parameter in ("qkv_weight", "up_weight"):
        assert_a_parameter_is_seen(
            "cuda", problem, parameter, 5, VALUES[value], precision=precision
        )


@pytest.mark.parametrize("rollouts", [1, 3])
def test_depths_and_rollouts(rollouts: int) -> None:
    options = {"num_steps": DEPTHS[:, :rollouts].cuda(), "rollouts": rollouts}
    check(PUBLISHED, [4, 9, 1, 30], "bf16", **options)


def test_many_sequences_and_the_same_bits_twice() -> None:
    """More tiles than units, so that each takes several."""
    core, hidden, lengths, depths = many_on_a_card(9000)
    runs = []
    for backend in ("reference", "cuda", "cuda"):
        with use_backend(backend):
            precision = "fp32" if backend == "reference" else "fp16"
            options = {"num_steps": depths, "precision": precision}
            runs.append(outputs(core, hidden, lengths, **options))
    assert worst(runs[1], [t.double() for t in runs[0]]) < 5e-3
    for mine, again in zip(runs[1], runs[2], strict=True):
        assert torch.equal(mine, again)


@pytest.mark.parametrize("sequences", [1, 1024])
def test_on_another_stream_and_in_a_graph(sequences: int) -> None:
    core = RecurrentCore(CoreConfig(), "cuda").eval()
    hidden = torch.randn(sequences, 20, 64, device="cuda")
    lengths = torch.arange(sequences, device="cuda") % 20 + 1

    def call() -> Tensor:
        return core(hidden, lengths, num_steps=4, precision="bf16").last

    with use_backend("cuda"), torch.no_grad():
        wanted = call().clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            assert torch.equal(call(), wanted)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        hidden.neg_()
        graph.replay()
        assert torch.equal(captured, call())


def test_no_wait_for_the_card() -> None:
    """A padded call neither reads back nor waits."""
    core = RecurrentCore(CoreConfig(), "cuda").eval()
    hidden = torch.randn(8, 20, 64, device="cuda")
    lengths = torch.full((8,), 20, device="cuda")
    with use_backend("cuda"), torch.no_grad():
        core(hidden, lengths, num_steps=2, precision="bf16")
        torch.cuda.set_sync_debug_mode("error")
        try:
            core(hidden, lengths, num_steps=3, precision="bf16")
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one card")
def test_on_the_second_card() -> None:
    core = RecurrentCore(CoreConfig(), "cuda:1").eval()
    hidden = torch.randn(8, 20, 64, device="cuda:1")
    results = []
    for backend in ("reference", "cuda"):
        with use_backend(backend), torch.no_grad():
            results.append(core(hidden, num_steps=2, precision="fp16").last)
    assert worst(results[1:], [results[0].double()]) < 5e-3


def test_it_is_not_chosen_by_itself() -> None:
    assert explain(PUBLISHED, [20, 7], 4, "cuda", precision="bf16").backend == "triton"
