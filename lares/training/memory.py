"""How much memory a run has taken."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Peak resident memory of this process, and of its allocations on a CUDA ``device``, in MiB."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    found = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    if device.type == "cuda":
        found["device"] = round(torch.cuda.max_memory_allocated(device) / 1024**2, 1)
    return found
