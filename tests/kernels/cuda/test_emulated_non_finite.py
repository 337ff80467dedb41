"""NaN, infinity and neighbours in the CUDA kernels' device code, run by the emulator."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
import torch

from lares_kernels import CoreConfig
from tests.kernels.cuda.test_emulated import SMALL
from tests.kernels.neighbours import assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
    places_of,
)
from tests.kernels.problems import name

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")

CONFIGS = [
    replace(SMALL, dropout=0.5, attn_dropout=0.5),
    replace(SMALL, adapter="none", dropout=0.0, attn_dropout=0.0),
    replace(SMALL, norm="pre", adapter="concat", activation="relu"),
]
LENGTHS = [3, 5, 20, 9]  # of one warp and of two
TOKENS = [(1, 0), (2, 19), (0, 1), (2, 7), (3, 8)]


@pytest.mark.parametrize("config", CONFIGS, ids=name)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_inputs(config: CoreConfig, precision: str) -> None:
    problem = make_problem(config, LENGTHS, config.is_recurrent)
    clean = problem.results("cuda", torch.float32, precision=precision)
    for tensor in ("hidden", *(["state"] if config.is_recurrent else [])):
        for (sequence, token), value in zip(TOKENS, VALUES.values(), strict=True):
            assert_stays_in_its_sequence(
                "cuda", problem, tensor, sequence, token, value, clean, precision=precision
            )


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_parameters(config: CoreConfig) -> None:
    problem = make_problem(config, [3, 5])
    values = cycle(VALUES.values())
    for parameter, tensor in problem.core.named_parameters():
        for place in places_of(tensor):
            assert_a_parameter_is_seen(
                "cuda", problem, parameter, place, next(values), precision="bf16"
            )


@pytest.mark.parametrize("lengths", [[5, 64, 4], [5, 60, 9], [15, 50, 20]], ids=str)
def test_neighbours(lengths: list[int]) -> None:
    config = replace(SMALL, attn_dropout=0.5)
    assert_as_alone("cuda", config, lengths, 2e-3, 2e-2, precision="fp16")
