"""NaN, infinity and neighbours under Triton's interpreter: the checks that every backend passes."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
import torch

from lares_kernels import CoreConfig, explain, use_backend
from lares_kernels.triton.settings import WEIGHTS, use_weights
from tests.kernels import test_catalogue_non_finite as catalogue
from tests.kernels.neighbours import NEAR_A_BLOCK, assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
    places_of,
)
from tests.kernels.problems import SMALL, name

DROPPING = replace(SMALL, n_layers=1, dropout=0.5, attn_dropout=0.5, inner_dropout=0.25)
FILTER = replace(SMALL, n_layers=1, mixer="filter", window=8, dropout=0.5)
CONFIGS = [
    replace(DROPPING, n_layers=2),
    replace(DROPPING, norm="query", padding="left-zeros", activation="relu"),
    FILTER,
    replace(FILTER, mixer="bsarec", attn_dropout=0.5),
    replace(SMALL, norm="pre", adapter="none", activation="silu"),
    replace(DROPPING, adapter="concat", activation="gelu_tanh"),
    # Past the tiles' widths: the layered plan.
    CoreConfig(72, 2, 24, 1, dropout=0.5, attn_dropout=0.5, inner_dropout=0.25),
]
LENGTHS = [3, 5, 1, 7]
TOKENS = [(1, 0), (3, 6), (0, 1), (2, 0), (3, 3)]


def ids(config: CoreConfig) -> str:
    return f"{config.mixer}-{name(config)}"


@pytest.mark.parametrize("tensor", ["hidden", "state"])
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_inputs(config: CoreConfig, tensor: str) -> None:
    if tensor == "state" and not config.is_recurrent:
        pytest.skip("it has no state")
    problem = make_problem(config, LENGTHS, config.is_recurrent)
    clean = problem.results("triton", torch.float32)
    for (sequence, token), value in list(zip(TOKENS, VALUES.values(), strict=True))[:3]:
        assert_stays_in_its_sequence("triton", problem, tensor, sequence, token, value, clean)


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_parameters(config: CoreConfig) -> None:
    problem = make_problem(config, [3, 2])
    values = cycle(VALUES.values())
    for parameter, tensor in problem.core.named_parameters():
        for place in places_of(tensor)[:: 1 if "qkv" in parameter else 2]:
            assert_a_parameter_is_seen("triton", problem, parameter, place, next(values))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_weights_on_the_chip(value: float) -> None:
    """In float16, read once and kept or read again for every layer."""
    problem = make_problem(replace(DROPPING, attn_dropout=0.0), LENGTHS)
    for where in WEIGHTS:
        with use_weights(where), use_backend("triton"):
            plan = explain(problem.core.config, problem.lengths, 2, precision="fp16").plan
            assert f"weights {where}" in plan
            for sequence, token in TOKENS[:2]:
                assert_stays_in_its_sequence(
                    "triton", problem, "hidden", sequence, token, value, precision="fp16"
                )


def test_gradients_that_are_not_finite() -> None:
    problem = make_problem(DROPPING, LENGTHS)
    core, found = problem.core.float(), []
    for value in (1.0, float("nan"), float("inf")):
        hidden = problem.hidden.float().requires_grad_()
        with use_backend("triton"):
            out = core(hidden, problem.lengths, num_steps=2, seed=7)
        weights = torch.ones_like(out.last)
        weights[3, 2] = value
        found.append(torch.autograd.grad(out.last, [hidden], weights)[0])
    clean, *spoilt = found
    for g in spoilt:
        assert not g[3, :7].isfinite().any()
        assert torch.equal(g[:3], clean[:3])


@pytest.mark.parametrize("lengths", [*NEAR_A_BLOCK[:2], NEAR_A_BLOCK[7], NEAR_A_BLOCK[-1]], ids=str)
def test_neighbours(lengths: list[int]) -> None:
    config = replace(DROPPING, n_layers=1, adapter="none")
    assert_as_alone("triton", config, lengths, tolerance=1e-6)


@pytest.mark.parametrize("value", list(VALUES.values())[1:4], ids=list(VALUES)[1:4])
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_catalogue(scores: str, value: float) -> None:
    catalogue.test_an_item_that_everyone_excludes_spoils_nothing("triton", scores, value)
    catalogue.test_an_item_that_some_exclude_is_seen_by_the_others("triton", scores, value)
    catalogue.test_an_item_is_seen("triton", scores, value)
    catalogue.test_a_query_stays_in_its_row("triton", scores, value, catalogue.HIDES)
    catalogue.test_a_chosen_item_is_seen("triton", value)
