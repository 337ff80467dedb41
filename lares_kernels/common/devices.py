"""Query torch's devices: the current one, graph capture, how float32 products round."""

from __future__ import annotations

import contextlib

import torch


def tf32_allowed() -> bool:
    """Return True if torch lets float32 products on NVIDIA cards round their operands to tf32."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # it was said by the newer switches, which this one does not read
        return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def on_device(device_type: str, index: int | None) -> contextlib.AbstractContextManager[object]:
    """Make a device torch's current one, where there are such devices and it is one of them."""
    if device_type != "cuda" or index is None or not torch.cuda.is_available():
        return contextlib.nullcontext()
    return torch.cuda.device(index)


def is_capturing(device_type: str) -> bool:
    """Return True if a graph is recorded, of which a kernel that runs now would be part."""
    return (
        device_type == "cuda"
        and torch.cuda.is_initialized()
        and torch.cuda.is_current_stream_capturing()
    )


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Direct launches inside to ``device``."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
