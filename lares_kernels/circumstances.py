"""What decides, beside a call itself, which backend may serve it.

These are settings of the process, and the card. A choice is kept under all of them, so that none
outlives what it was made under.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Hashable

import torch

from lares_kernels.cpu_library import asked_sets

SELF_CHECK = "LARES_SELF_CHECK"
# os.environ.get raises and catches two exceptions for a variable that is not set, in every call. This
# one sees what is set through os.environ, too, and like that holds the interpreter's lock.
getenv = ctypes.PyDLL(None).getenv
getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_char_p
_SELF_CHECK = SELF_CHECK.encode()

Circumstances = tuple[Hashable, ...]


def circumstances(device_type: str, index: int | None) -> Circumstances:
    """Return what else decides about calls on a device now.

    Args:
        device_type: of the call's tensors.
        index: of their device; None for torch's current one.
    """
    if device_type != "cuda":
        return getenv(_SELF_CHECK), asked_sets()
    if index is None and torch.cuda.is_initialized():
        index = torch.cuda.current_device()
    return getenv(_SELF_CHECK), index, tf32_allowed()


def tf32_allowed() -> bool:
    """Say whether torch lets float32 products on NVIDIA's cards round their operands to tf32."""
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
    """Return whether a graph is recorded, of which a kernel that runs now would be part."""
    return (
        device_type == "cuda"
        and torch.cuda.is_initialized()
        and torch.cuda.is_current_stream_capturing()
    )
