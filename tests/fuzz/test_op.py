"""The fuzzers find what they are for, and nothing in what there is."""

from __future__ import annotations

import pytest

from tests.fuzz import op, runner


def test_a_few_cases() -> None:
    for seed in range(150):
        op.case(seed)


@pytest.mark.long
def test_for_a_while() -> None:
    assert runner.main("tests.fuzz.op", op.case, ["--seconds", "20", "--seed", "1000"]) == 0
