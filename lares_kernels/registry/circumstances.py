"""Collect what decides, beside a call itself, which backend may serve it.

These are settings of the process, and the card. They are the key of cached choices, so that no choice
outlives them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Hashable

import torch

from lares_kernels.binding.cpu_library import asked_sets
from lares_kernels.common.devices import tf32_allowed

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
