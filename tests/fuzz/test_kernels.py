"""The fuzzers of the kernels find nothing in what there is."""

from __future__ import annotations

import pytest

from tests.fuzz import interpreted, kernels, runner
from tests.kernels.triton.test_triton import why_not


@pytest.mark.long
def test_for_a_while() -> None:
    assert runner.main("tests.fuzz.kernels", kernels.case, ["--seconds", "15"]) == 0


@pytest.mark.long
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_over_triton_for_a_while() -> None:
    assert runner.main("tests.fuzz.interpreted", interpreted.case, ["--seconds", "15"]) == 0
