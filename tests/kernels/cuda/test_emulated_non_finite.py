"""NaN, infinity and neighbours in the CUDA kernels' device code, run by the emulator."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
import torch

from lares_kernels import CoreConfig, explain, use_backend
from tests.fuzz import emulated, runner
from tests.kernels.neighbours import assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    Problem,
    assert_a_parameter_is_seen,
    assert_others_are_the_same,
    assert_stays_in_its_sequence,
    broken,
    make_problem,
    places_of,
)
from tests.kernels.problems import name

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")

# Of the narrowest kernels alone, with dropout and without.
TINY = CoreConfig(d_model=32, n_heads=2, d_ff=40, n_layers=1)
DROPPING = replace(TINY, dropout=0.5, attn_dropout=0.5)
CONFIGS = [
    DROPPING,
    replace(TINY, adapter="none", activation="relu"),
    replace(TINY, norm="pre", adapter="concat", activation="silu", n_layers=2),
    replace(DROPPING, norm="pre", adapter="none", activation="gelu_tanh"),
    replace(TINY, adapter="gate", dropout=0.25),
]
# Rows that wait in shared memory, gradients that wait in memory.
WIDE = [
    replace(DROPPING, d_model=128, n_heads=2),
    replace(TINY, d_model=64, n_heads=1, norm="pre", adapter="none"),
]
LENGTHS = [3, 5, 20, 9]  # of one warp and of two, which share tiles
TOKENS = [(1, 0), (2, 19), (0, 1), (2, 7), (3, 8)]
NAN = VALUES["nan"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("config", [*CONFIGS, *WIDE], ids=lambda c: f"{name(c)}-{c.d_model}")
def test_inputs(config: CoreConfig, precision: str) -> None:
    problem = make_problem(config, LENGTHS, config.is_recurrent)
    clean = problem.results("cuda", torch.float32, precision=precision)
    tensors = cycle(("hidden", "state") if config.is_recurrent else ("hidden",))
    for (sequence, token), value in zip(TOKENS, VALUES.values(), strict=True):
        assert_stays_in_its_sequence(
            "cuda", problem, next(tensors), sequence, token, value, clean, precision=precision
        )


@pytest.mark.parametrize("token", [0, 15, 16, 39])
@pytest.mark.long
def test_sequences_of_several_warps(token: int) -> None:
    """Between two others, of which each shares a warp's rows with it."""
    problem = make_problem(replace(TINY, dropout=0.5), [5, 40, 19])
    assert_stays_in_its_sequence("cuda", problem, "hidden", 1, token, NAN, precision="fp16")


@pytest.mark.long
def test_depths_and_rollouts() -> None:
    depths = torch.tensor([[2, 1], [3, 1], [1, 1], [3, 3]])
    problem = make_problem(DROPPING, LENGTHS, num_steps=depths, rollouts=2)
    for (sequence, token), value in zip(TOKENS, VALUES.values(), strict=True):
        assert_stays_in_its_sequence(
            "cuda", problem, "hidden", sequence, token, value, precision="bf16"
        )


@pytest.mark.parametrize(
    ("config", "precision", "value"),
    [
        (CONFIGS[1], "fp16", 1e5),  # past what 16 bits hold
        (CONFIGS[1], "fp16", -6e4),  # keys and values are
        (CONFIGS[1], "bf16", 3e38),
        (CONFIGS[3], "fp16", 6e4),
    ],
)
@pytest.mark.long
def test_numbers_that_become_infinite_on_the_way(
    config: CoreConfig, precision: str, value: float
) -> None:
    """Other sequences are as they were, whatever this one's float64 results are."""
    problem = make_problem(config, LENGTHS)
    clean = problem.results("cuda", torch.float32, precision=precision)
    spoilt = replace(problem, hidden=problem.hidden.clone())
    spoilt.hidden[1, 1] = value
    found = spoilt.results("cuda", torch.float32, precision=precision)
    assert_others_are_the_same(found, clean, 1, str(value))


@pytest.mark.parametrize("config", CONFIGS, ids=name)
@pytest.mark.long
def test_parameters(config: CoreConfig) -> None:
    problem = make_problem(config, [3, 5, 1])
    values = cycle(VALUES.values())
    for parameter, tensor in problem.core.named_parameters():
        for place in places_of(tensor):
            assert_a_parameter_is_seen(
                "cuda", problem, parameter, place, next(values), precision="bf16"
            )


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("config", [DROPPING, CONFIGS[3]], ids=name)
@pytest.mark.long
def test_gradients_that_are_not_finite(config: CoreConfig, value: str) -> None:
    """A loss that is not finite for one sequence, whose numbers all are."""
    problem = make_problem(config, LENGTHS)
    core, found = problem.core.float(), []
    for number in (1.0, VALUES[value]):
        hidden = problem.hidden.float().requires_grad_()
        with use_backend("cuda"):
            out = core(hidden, problem.lengths, seed=7, precision="bf16", num_steps=steps(problem))
        weights = torch.ones_like(out.last)
        weights[1, 2] = number
        found.append(torch.autograd.grad(out.last, [hidden, *core.parameters()], weights))
    clean, spoilt = found
    assert broken(spoilt[0][1, :5]).all()
    assert torch.equal(spoilt[0][[0, 2, 3]], clean[0][[0, 2, 3]])
    assert all(broken(tensor).any() for tensor in spoilt[1:])


def steps(problem: Problem) -> int:
    return 2 if problem.core.config.is_recurrent else 1


@pytest.mark.parametrize("config", CONFIGS[1:3], ids=name)
@pytest.mark.parametrize("lengths", [[7, 20], [7, 3, 20, 1]], ids=["low-latency", "tiles"])
@pytest.mark.long
def test_inference(config: CoreConfig, lengths: list[int]) -> None:
    """Of both plans: inputs of one sequence, and each kind of parameter."""
    problem = make_problem(config, lengths)

    def run(which: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        core = which.core.float().eval()
        with use_backend("cuda"), torch.no_grad():
            hidden = which.hidden.float()
            options = {"precision": "bf16", "return_state": True, "num_steps": steps(which)}
            plan = explain(
                core.config, which.lengths, num_steps=steps(which), precision="bf16"
            ).plan
            assert ("low-latency" in plan) == (len(lengths) == 2)
            out = core(hidden, which.lengths, **options)
        return out.last, out.state

    last, state = run(problem)
    for value in VALUES.values():
        spoilt_last, spoilt_state = run(problem.with_number("hidden", 4 * 32 + 7, value))
        assert broken(spoilt_last[0]).all()
        assert broken(spoilt_state[0, 4:7]).all()
        assert torch.equal(spoilt_last[1:], last[1:])
        assert torch.equal(spoilt_state[1:], state[1:])
    for parameter, tensor in problem.core.named_parameters():
        for place in places_of(tensor):
            found = run(problem.with_number(parameter, place, NAN))[0]
            assert broken(found).any(1).all(), (parameter, place)


@pytest.mark.parametrize("lengths", [[5, 64, 4], [5, 60, 9], [15, 50, 20]], ids=str)
@pytest.mark.long
def test_neighbours(lengths: list[int]) -> None:
    config = replace(TINY, attn_dropout=0.5)
    assert_as_alone("cuda", config, lengths, 2e-3, 2e-2, precision="fp16")


@pytest.mark.long
def test_random_calls() -> None:
    """Its processes find the emulator by the environment."""
    assert runner.main("tests.fuzz.emulated", emulated.case, ["--seconds", "10"]) == 0
