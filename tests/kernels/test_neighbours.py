"""What a sequence gets does not depend on those beside it: dropout's decisions, and so its results."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lares_kernels.binding import cpu_library as lib
from tests.kernels.neighbours import NEAR_A_BLOCK, assert_as_alone
from tests.kernels.problems import SMALL, assert_equal_to_equations
from tests.kernels.tools import cpu_sets

DROPPING = replace(SMALL, n_layers=1, attn_dropout=0.5, dropout=0.25)
# Those of bfloat16, too: attention is compiled for each.
SETS = cpu_sets("bf16")
every_set = pytest.mark.parametrize("instruction_set", SETS)


def precision_of(instruction_set: str) -> str:
    return "bf16" if instruction_set.endswith("_bf16") else "fp32"


@pytest.mark.parametrize("program", ["reference", "equations"])
@pytest.mark.parametrize("lengths", NEAR_A_BLOCK[:4], ids=str)
def test_programs(program: str, lengths: list[int]) -> None:
    assert_as_alone(program, DROPPING, lengths, tolerance=1e-6)


@every_set
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("lengths", NEAR_A_BLOCK, ids=str)
def test_cpu(instruction_set: str, lengths: list[int]) -> None:
    precision = precision_of(instruction_set)
    with lib.use_instruction_set(instruction_set):
        assert_as_alone("cpu", DROPPING, lengths, precision=precision)
        if precision == "fp32":
            assert_equal_to_equations("cpu", DROPPING, lengths, num_steps=2)


@every_set
@pytest.mark.parametrize("n", [48, 49, 50, 56, 57, 61, 62, 63, 64, 65])
def test_every_place_of_a_vector(instruction_set: str, n: int) -> None:
    """A sequence of about 64 tokens that begins anywhere, with short ones behind it."""
    config = replace(DROPPING, dropout=0.0, adapter="none")
    with lib.use_instruction_set(instruction_set):
        for before in range(17):
            lengths = [*([before] if before else []), n, 1, 2, 5]
            assert_as_alone("cpu", config, lengths, precision=precision_of(instruction_set))


@every_set
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(
        st.one_of(st.integers(1, 16), st.integers(44, 66), st.integers(1, 130)),
        min_size=2,
        max_size=6,
    ),
    heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_lengths(instruction_set: str, lengths: list[int], heads: int, seed: int) -> None:
    with lib.use_instruction_set(instruction_set):
        config = replace(DROPPING, n_heads=heads)
        precision = precision_of(instruction_set)
        assert_as_alone("cpu", config, lengths, seed=seed, precision=precision)
