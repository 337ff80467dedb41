"""Round tensors of parameters and constants to what products in ``tf32`` read."""

from __future__ import annotations

from torch import Tensor

from lares_kernels.common.device_tables import wait_for

_BLOCK = 1024


def round_to_tf32(numbers: Tensor) -> Tensor:
    """Round ``numbers``, contiguous float32, to the nearest of tf32 where they are; return them."""
    from lares_kernels.triton.kernels.rounding import round_kernel

    size = numbers.numel()
    round_kernel[(-(-size // _BLOCK),)](numbers, size, BLOCK=_BLOCK)
    return numbers


def rounded_table(table: Tensor) -> Tensor:
    """Return a rounded copy of a table, which calls on any stream can read."""
    rounded = round_to_tf32(table.clone())
    wait_for(table.device)
    return rounded
