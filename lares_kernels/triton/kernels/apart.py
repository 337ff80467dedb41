"""Sequences of a tile kept apart from what is not finite in one of them.

In products of a tile's rows another sequence's numbers are multiplied by zero, and zero times NaN or
infinity is NaN. That such numbers stay in their sequence costs much where they are, and next to nothing
where they are not: a tile is computed as it comes, and only if its result is not finite a second time,
guarded. Then what is not finite counts as zero in products, and NaN is put where it would have led to.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import tiles
from lares_kernels.triton.kernels.rows import field


@triton.jit
def finite(x):
    """Whether ``x`` (rows, columns) holds neither NaN nor infinity."""
    return tl.sum(tl.sum(x * 0.0, 1), 0) == 0.0


@triton.jit
def guarded(info, C: tl.constexpr):
    """Whether the tile's sequences are kept apart. All threads get the same answer."""
    return tl.load(info + tiles.GUARDED * C.rows) != 0


@triton.jit
def guard(info, C: tl.constexpr):
    """Keep the tile's sequences apart from now on."""
    tl.debug_barrier()
    tl.store(info + tiles.GUARDED * C.rows, 1)
    tl.debug_barrier()


@triton.jit
def must_repeat(x, info, C: tl.constexpr):
    """1 if a tile with the result ``x`` is to be computed once more, guarded as from now on; else 0."""
    repeats = 0
    if finite(x) == 0:
        if guarded(info, C) == 0:
            guard(info, C)
            repeats = 1
    return repeats


@triton.jit
def visible(info, C: tl.constexpr):
    """(rows, rows) bool: keys of a query's own sequence up to the query itself, but for padding."""
    query = tl.arange(0, C.rows)[:, None]
    key = tl.arange(0, C.rows)[None, :]
    seen = (key <= query) & (key >= field(info, tiles.FIRST, C)[:, None])
    if C.bands:
        seen = seen & (field(info, tiles.SHOWN, C)[None, :] != 0)
    return seen


@triton.jit
def trace(x):
    """(rows, 1): zero, and NaN for rows of ``x`` that are not finite."""
    return tl.sum(x.to(tl.float32) * 0.0, 1)[:, None]


@triton.jit
def cleared(x, trace):
    """``x`` with zeros in rows whose ``trace`` is NaN."""
    return tl.where(trace == 0.0, x, tl.zeros_like(x))


@triton.jit
def keys_and_values(key, value):
    """Both, where a value is not finite with zeros in its place and a key that is NaN.

    Scores of keys that a query may not see are never looked at, so NaN is the query's that sees it.
    """
    of_value = trace(value)
    return key + of_value.to(key.dtype), cleared(value, of_value)


@triton.jit
def windows(x, info, C: tl.constexpr):
    """(``x`` with zeros in rows that are not finite, NaN (rows, 1) for all rows of their sequences)."""
    own = trace(x)
    first = field(info, tiles.FIRST, C)
    together = first[:, None] == first[None, :]
    of_all = tl.sum(tl.where(together, tl.reshape(own, (1, C.rows)), 0.0), 1)
    return cleared(x, own), of_all[:, None]
