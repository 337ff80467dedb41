"""The fuzzer of the kernels finds nothing in what there is."""

from __future__ import annotations

import pytest

from tests.fuzz import kernels, runner


@pytest.mark.long
def test_for_a_while() -> None:
    assert runner.main("tests.fuzz.kernels", kernels.case, ["--seconds", "15"]) == 0
