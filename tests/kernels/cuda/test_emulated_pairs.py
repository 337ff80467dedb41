"""Every pair of choices that the CUDA backend serves, by its kernels on the emulator."""

from __future__ import annotations

import pytest
import torch

from lares_kernels.binding import cuda_library as library
from tests.kernels import pairs

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")
MOST = 16  # four adapters with four activations; the other pairs beside them


@pytest.mark.parametrize("number", range(MOST))
def test_pairs(number: int) -> None:
    served = pairs.served_cores("cuda", 32, library.device_type(), torch.bfloat16)
    assert len(served) == MOST
    pairs.check("cuda", served[number], "bf16", 2e-2)
