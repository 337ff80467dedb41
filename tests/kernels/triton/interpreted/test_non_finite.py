"""NaN, infinity and neighbours under Triton's interpreter: the checks that every backend passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lares_kernels import CoreConfig, explain, use_backend
from lares_kernels.triton.launch.rules import WEIGHTS
from lares_kernels.triton.launch.settings import use_weights
from tests.kernels.neighbours import assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
)
from tests.kernels.problems import name

# Interpreted, every product takes as long as a thousand of PyTorch's: the least cores there are.
TINY = CoreConfig(16, 1, 16, 1)
DROPPING = replace(TINY, dropout=0.5, attn_dropout=0.5, inner_dropout=0.25)
# Past the tiles' widths.
LAYERED = replace(DROPPING, d_model=144, n_heads=2)
CONFIGS = [
    DROPPING,
    replace(TINY, norm="query", padding="left-zeros", activation="relu", attn_dropout=0.5),
    replace(TINY, norm="pre", adapter="none", n_layers=2),
    replace(TINY, adapter="concat"),
    replace(TINY, adapter="gate", norm="pre"),
    replace(TINY, mixer="filter", window=8),
    replace(TINY, mixer="bsarec", window=8, dropout=0.5),
    LAYERED,
]
LENGTHS = [3, 5, 1]
NAN, INF = VALUES["nan"], VALUES["-inf"]


def ids(config: CoreConfig) -> str:
    return f"{config.mixer}-{name(config)}-{config.d_model}"


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_inputs(config: CoreConfig) -> None:
    problem = make_problem(config, LENGTHS, config.is_recurrent)
    clean = problem.results("triton", torch.float32)
    places = [("hidden", 1, 1, NAN), ("hidden", 2, 0, INF)]
    if config.is_recurrent:
        places[1] = ("state", 0, 2, INF)
    for tensor, sequence, token, value in places:
        assert_stays_in_its_sequence("triton", problem, tensor, sequence, token, value, clean)


@pytest.mark.parametrize("config", [DROPPING, LAYERED], ids=ids)
def test_parameters(config: CoreConfig) -> None:
    """Those whose NaN a comparison could lose: of scores, of activations, of what dropout takes."""
    problem = make_problem(config, [3, 2], num_steps=1)
    of = {parameter: tensor.numel() for parameter, tensor in problem.core.named_parameters()}
    places = {parameter: count // 2 for parameter, count in of.items() if "up_" in parameter}
    places |= {parameter: count - 1 for parameter, count in of.items() if "down_w" in parameter}
    places |= {parameter: count // 5 for parameter, count in of.items() if "qkv_w" in parameter}
    assert len(places) == 4
    for (parameter, place), value in zip(places.items(), VALUES.values(), strict=False):
        assert_a_parameter_is_seen("triton", problem, parameter, place, value)


@pytest.mark.parametrize("where", WEIGHTS)
def test_weights_on_the_chip(where: str) -> None:
    """In float16, read once and kept or read again for every layer."""
    problem = make_problem(replace(DROPPING, attn_dropout=0.0), LENGTHS)
    with use_weights(where), use_backend("triton"):
        plan = explain(problem.core.config, problem.lengths, 2, precision="fp16").plan
        assert f"weights {where}" in plan
        assert_stays_in_its_sequence("triton", problem, "hidden", 1, 1, NAN, precision="fp16")


def test_gradients_that_are_not_finite() -> None:
    problem = make_problem(DROPPING, LENGTHS)
    core, found = problem.core.float(), []
    for value in (1.0, NAN, INF):
        hidden = problem.hidden.float().requires_grad_()
        with use_backend("triton"):
            out = core(hidden, problem.lengths, num_steps=2, seed=7)
        weights = torch.ones_like(out.last)
        weights[1, 2] = value
        found.append(torch.autograd.grad(out.last, [hidden, *core.parameters()], weights))
    clean, *spoilt = found
    for g, *of_parameters in spoilt:
        assert not g[1].isfinite().any()
        assert torch.equal(g[[0, 2]], clean[0][[0, 2]])
        assert not any(tensor.isfinite().all() for tensor in of_parameters)


@pytest.mark.parametrize("lengths", [[5, 64, 4], [5, 60, 9]], ids=str)
def test_neighbours(lengths: list[int]) -> None:
    """Attention dropout does not depend on them."""
    config = replace(DROPPING, adapter="none")
    assert_as_alone("triton", config, lengths, tolerance=1e-6)
