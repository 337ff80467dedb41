"""Translate torch's dtypes, devices and streams to the numbers that the library takes."""

from __future__ import annotations

import torch

from lares_kernels.spec.choices import Precision

PRECISIONS = {torch.bfloat16: Precision.BF16, torch.float16: Precision.FP16}  # of products


def index_of(device: torch.device) -> int:
    """Return the card's index; 0 for the emulator."""
    if device.type == "cpu":
        return 0
    return torch.cuda.current_device() if device.index is None else device.index


def stream_of(device: torch.device) -> int | None:
    """Return the stream to launch on."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
