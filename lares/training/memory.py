"""Check and measure the memory that a run takes."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

from lares.errors import ConfigError
from lares.model.config import LaresConfig
from lares.model.model import LaresModel

_FLOAT_BYTES = 4
_COPIES = 4  # of a weight in training: itself, its gradient, Adam's two moments


def require_memory_for(config: LaresConfig, device: torch.device) -> None:
    """Raise ``ConfigError`` if this machine lacks the memory to train a model, before any is taken."""
    weights = sum(each.numel() for each in LaresModel.without_memory(config).state_dict().values())
    copies = _COPIES if device.type == "cpu" else 1
    needed = weights * copies * _FLOAT_BYTES
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ConfigError(
            f"a model of {config.n_items - 1:,} items with model.d_model={config.d_model}, "
            f"model.d_ff={config.d_ff}, model.max_length={config.max_length} has {weights:,} weights, "
            f"which take {needed / 2**30:.0f} GiB; this machine has {there / 2**30:.0f}. Make it "
            "smaller"
        )


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Peak resident memory of this process, and of its allocations on a CUDA ``device``, in MiB."""
    if sys.platform == "linux":
        # getrusage may tell a process the peak of the one that started it.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    peaks = {"host": round(peak / 1024**2, 1)}
    if device.type == "cuda":
        peaks["device"] = round(torch.cuda.max_memory_allocated(device) / 1024**2, 1)
    return peaks
