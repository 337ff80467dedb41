"""NaN and infinity in what the recurrence is given: where they go, and that they are seen.

tests/kernels/non_finite.py has the checks, which interpreted and emulated kernels pass as well.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch

from lares_kernels import CoreConfig, use_backend
from lares_kernels.binding import cpu_library as lib
from lares_kernels.binding.cpu_library import evaluate
from tests.kernels.non_finite import (
    LENGTHS,
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
    places_of,
)
from tests.kernels.problems import MIXERS, SMALL, VARIANTS, name

HAS_CPU = not isinstance(lib.load(), str)
PROGRAMS = ["reference", "equations"]
on_cpu = pytest.mark.skipif(not HAS_CPU, reason=f"no CPU kernel: {lib.load()}")
ONE_LAYER = replace(SMALL, n_layers=1)
DROPPING = replace(SMALL, dropout=0.5, attn_dropout=0.5, inner_dropout=0.25)
CONFIGS = [
    SMALL,
    replace(SMALL, norm="pre", adapter="none"),
    replace(ONE_LAYER, norm="query", padding="left-zeros", activation="relu"),
    replace(ONE_LAYER, adapter="concat", activation="silu"),
    replace(ONE_LAYER, adapter="gate", activation="gelu_tanh", norm="pre"),
    replace(MIXERS[0], n_layers=1),
    replace(MIXERS[6], n_layers=1),
    DROPPING,
]
EVERY = [*VARIANTS, *MIXERS]
# (sequence, token) of LENGTHS: either end and the middle of sequences that share vectors with others.
TOKENS = [(1, 0), (3, 8), (4, 10), (0, 1), (2, 0)]


def check_inputs(
    backend: str, config: CoreConfig, lengths: list[int] = LENGTHS, **options: Any
) -> None:
    """Every value once, in ``hidden`` and in a given state."""
    problem = make_problem(config, lengths, config.is_recurrent, **options)
    clean = problem.results(backend, torch.float32)
    for tensor in ("hidden", *(["state"] if config.is_recurrent else [])):
        for (sequence, token), value in zip(TOKENS, VALUES.values(), strict=True):
            assert_stays_in_its_sequence(backend, problem, tensor, sequence, token, value, clean)


def check_parameters(backend: str, config: CoreConfig) -> None:
    """One value in each of three places of every parameter."""
    problem = make_problem(config, [3, 5, 1])
    values = cycle(VALUES.values())
    for parameter, tensor in problem.core.named_parameters():
        for place in places_of(tensor):
            assert_a_parameter_is_seen(backend, problem, parameter, place, next(values))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("config", [DROPPING, CONFIGS[-2]], ids=name)
def test_inputs_of_programs(program: str, config: CoreConfig) -> None:
    check_inputs(program, config)


def test_parameters_of_the_reference() -> None:
    check_parameters("reference", ONE_LAYER)


@pytest.mark.usefixtures("instruction_set", "poisoned_memory")
@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_inputs(config: CoreConfig) -> None:
    check_inputs("cpu", config)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("config", [DROPPING, *CONFIGS[2:4], CONFIGS[-2]], ids=name)
def test_parameters(config: CoreConfig) -> None:
    check_parameters("cpu", config)


@on_cpu
@pytest.mark.long
@pytest.mark.parametrize("config", EVERY, ids=name)
def test_every_core(config: CoreConfig) -> None:
    check_inputs("cpu", replace(config, dropout=0.5, attn_dropout=0.5, inner_dropout=0.25))
    check_parameters("cpu", config)


@pytest.mark.usefixtures("instruction_set")
def test_sequences_that_share_vectors_at_every_place() -> None:
    """One at a time of many short sequences, and of long ones with groups of their own."""
    lengths = [2, 3, 1, 7, 4, 66, 5, 1, 1, 9, 3, 64, 15]
    problem = make_problem(replace(ONE_LAYER, attn_dropout=0.5), lengths)
    clean = problem.results("cpu", torch.float32)
    values = cycle(VALUES.values())
    for sequence, n in enumerate(lengths):
        for token in {0, n - 1}:
            assert_stays_in_its_sequence(
                "cpu", problem, "hidden", sequence, token, next(values), clean
            )


@on_cpu
def test_depths_and_rollouts() -> None:
    config = replace(ONE_LAYER, attn_dropout=0.5)
    depths = torch.tensor([[2, 1], [3, 1], [1, 1], [3, 3], [2, 3], [1, 2]])
    check_inputs("cpu", replace(config, adapter="gate"), num_steps=depths[:, 0])
    problem = make_problem(config, num_steps=depths, rollouts=2)
    for sequence, token in TOKENS:
        assert_stays_in_its_sequence("cpu", problem, "hidden", sequence, token, float("nan"))


@on_cpu
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_where_the_newest_rows_alone_are_computed(value: float) -> None:
    """In inference the last layer of the last step skips the other rows."""
    problem = make_problem(SMALL)
    spoilt = problem.with_number("hidden", (3 * 20 + 2) * 16 + 5, value)
    found = []
    for which in (problem, spoilt):
        core = which.core.float().eval()
        with use_backend("cpu"), torch.no_grad():
            found.append(core(which.hidden.float(), which.lengths, num_steps=2).last)
    clean, last = found
    assert not last[3].isfinite().any()
    others = [0, 1, 2, 4, 5]
    assert torch.equal(last[others], clean[others])


@on_cpu
def test_gradients_that_are_not_finite_stay_in_their_sequence() -> None:
    """A loss that is NaN for one sequence, whose numbers are all finite."""
    problem = make_problem(DROPPING)
    core = problem.core.float()
    found = []
    for value in (1.0, float("nan"), float("inf")):
        hidden = problem.hidden.float().requires_grad_()
        with use_backend("cpu"):
            out = core(hidden, problem.lengths, num_steps=2, seed=7)
        weights = torch.ones_like(out.last)
        weights[3, 2] = value
        found.append(torch.autograd.grad(out.last, [hidden], weights)[0])
    clean, *spoilt = found
    for g in spoilt:
        assert not g[3, :9].isfinite().any()
        others = [0, 1, 2, 4, 5]
        assert torch.equal(g[others], clean[others])


@on_cpu
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_precision(precision: str) -> None:
    problem = make_problem(SMALL)
    for (sequence, token), value in zip(TOKENS, VALUES.values(), strict=True):
        assert_stays_in_its_sequence(
            "cpu", problem, "hidden", sequence, token, value, precision=precision
        )


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("function", ["exp", "erf_scaled", "gelu_slope", "sigmoid"])
def test_elementary_functions_of_nan(function: str) -> None:
    """Whatever its bits: one is as good as another, and their low bits are read as an exponent."""
    bits = torch.tensor([0x7FC00000, 0x7FFFFFFF, 0x7FC001FF, 0x7F800001, 0x7FC00080, -1, -4194304])
    assert evaluate(function, bits.to(torch.int32).view(torch.float32)).isnan().all()
    assert evaluate("exp", torch.tensor([float("-inf"), -1e30, -90.0])).max() < 2e-38
    assert not evaluate("exp", torch.tensor([float("inf")])).isfinite().any()
