"""Every pair of choices that the Triton backend serves, under the interpreter."""

from __future__ import annotations

import pytest
import torch

from lares_kernels import CoreConfig
from tests.kernels import pairs

SERVED = pairs.served_cores("triton", 16, "cpu", torch.float32)


@pytest.mark.parametrize("config", SERVED, ids=range(len(SERVED)))
def test_pairs(config: CoreConfig) -> None:
    pairs.check("triton", config, "fp32", 1e-4)
