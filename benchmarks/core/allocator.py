"""The C library's allocator, told to keep what is freed for the next call."""

from __future__ import annotations

import ctypes

# Numbers of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Give no memory back to the system until the process ends; whether the allocator can be told so.

    Otherwise glibc returns large blocks now and then, depending on what ran before, and takes them anew
    page by page: the same padded forward pass took 130 ms without such page faults and 175 ms with
    them. Programs that allocate much gain by this setting, the op's competitors most of all.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, -1) and mallopt(_MMAP_MAX, 0))
