"""Cache tables that the host makes once and later calls read on a device, on any stream."""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.common.devices import is_capturing


def to_device(device: torch.device, *tables: Tensor) -> list[Tensor]:
    """Copy ``tables`` to ``device`` and wait until they are there.

    The table may be read by calls on other streams, which are not ordered after this copy.

    Raises:
        RuntimeError: a CUDA graph is being captured, which cannot contain a copy from the host.
    """
    if is_capturing(device.type):
        raise RuntimeError(
            f"a CUDA graph is captured, and this is the first such call on {device}: it copies tables "
            "from the host, which no graph can hold; make the call once before (lares_kernels.warmup)"
        )
    copies = [table.to(device) for table in tables]
    wait_for(device)
    return copies


def wait_for(device: torch.device) -> None:
    """Wait for what was asked of a device on torch's current stream."""
    if device.type == "cuda" and torch.cuda.is_initialized():  # or it is one of fake tensors
        torch.cuda.current_stream(device).synchronize()
