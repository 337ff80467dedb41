"""The CPU kernel's elementary functions against float64, over dense grids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lares_kernels.binding.cpu_library import evaluate
from tests.kernels.tools import NEEDS_CPU_KERNEL

pytestmark = NEEDS_CPU_KERNEL


def grid(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, 400_001)


@pytest.mark.usefixtures("instruction_set")
def test_exp() -> None:
    x = grid(-87.0, 88.0)
    exact = x.double().exp()
    assert ((evaluate("exp", x) - exact) / exact).abs().max() < 2.5e-7
    assert evaluate("exp", torch.tensor([-1e30, -200.0])).max() < 2e-38


@pytest.mark.usefixtures("instruction_set")
def test_log() -> None:
    for x in (grid(1e-3, 4.0), torch.logspace(-37, 37, 100_001)):
        exact = x.double().log()
        found = evaluate("log", x)
        assert ((found - exact).abs() <= 2e-7 * exact.abs() + 1e-9).all()


@pytest.mark.usefixtures("instruction_set")
def test_gelu_and_its_slope() -> None:
    x = torch.cat((grid(-12.0, 12.0), torch.tensor([-1e6, 1e6, -0.0, 1e-30])))
    wide = x.double()
    erf = torch.erf(wide / math.sqrt(2.0))
    assert (evaluate("erf_scaled", x) - erf).abs().max() < 8e-7
    density = torch.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    slope = 0.5 * (1 + erf) + wide * density
    assert (evaluate("gelu_slope", x) - slope).abs().max() < 6e-7


@pytest.mark.usefixtures("instruction_set")
def test_sigmoid() -> None:
    x = grid(-100.0, 100.0)
    exact = torch.sigmoid(x.double())
    found = evaluate("sigmoid", x)
    assert ((found - exact).abs() <= 5e-7 * exact + 1e-37).all()
