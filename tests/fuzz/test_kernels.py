"""The fuzzer of the kernels finds nothing in what there is."""

from __future__ import annotations

import pytest

from tests.fuzz import kernels


@pytest.mark.long
def test_three_hundred_cases() -> None:
    for seed in range(300):
        kernels.case(seed)
