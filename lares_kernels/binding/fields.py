"""Hold ctypes' structs to a library's sizes, and to the specification's names."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any


def has_sizes(sizes_of: Callable[[Any], object], *structs: type[ctypes.Structure]) -> bool:
    """Return True if a library's structs are as long as ours.

    A library that was not built since a struct grew would read past the end of ours.

    Args:
        sizes_of: function of the library that writes its structs' sizes, int64.
        structs: ours, in its order.
    """
    sizes = (ctypes.c_int64 * len(structs))()
    sizes_of(sizes)
    return [*sizes] == [ctypes.sizeof(struct) for struct in structs]


def same_names(struct: type[ctypes.Structure], names: Iterable[str]) -> tuple[str, ...]:
    """Return the fields of a struct that are among ``names``: what is filled in by name."""
    wanted = {*names}
    return tuple(field[0] for field in struct._fields_ if field[0] in wanted)
