"""Sequences of a tile kept apart from what is not finite in one of them.

In products of a tile's rows another sequence's numbers are multiplied by zero, and zero times NaN or
infinity is NaN.

*Forward*, rows (where whole windows mix, windows) are finite or NaN throughout: LayerNorm makes them
so, and :func:`whole` what comes without one. Then NaN counts as zero in such products (``layer.py``,
``mixing.py``): what they are added to is NaN already, or its scores are.

*Backward*, a tile is *parted* from the first step on that begins with a number which is not finite:
every step then runs for one sequence after the other, and the others' rows are as past a tile's end.

Infinity that arises inside a step, such as in float16, reaches the tile's other sequences as NaN.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import tiles
from lares_kernels.triton.kernels.rows import field


@triton.jit
def trace(x):
    """(rows,): zero, and NaN for rows of ``x`` that are not finite."""
    return tl.sum(x.to(tl.float32) * 0.0, 1)


@triton.jit
def whole(x, others, info, C: tl.constexpr):
    """``x`` with NaN throughout rows that are not finite in it or in ``others``, a block like it.

    Where whole windows mix, throughout these.
    """
    own = trace(x + others)
    if C.window > 0:
        first = field(info, tiles.FIRST, C)
        together = first[:, None] == first[None, :]
        own = tl.sum(tl.where(together, tl.reshape(own, (1, C.rows)), 0.0), 1)
    return x + own[:, None]


@triton.jit
def zeros_for_nan(x):
    """``x`` with zeros in place of NaN."""
    return tl.where(x == x, x, 0.0)


@triton.jit
def part(info, C: tl.constexpr):
    """0 if the tile is not parted; else 1 more than the first row of the part whose turn it is."""
    return tl.load(info + tiles.PART * C.rows)


@triton.jit
def turn_to(info, part, C: tl.constexpr):
    """Change :func:`part`; all threads have come here, and see it afterwards."""
    tl.debug_barrier()
    tl.store(info + tiles.PART * C.rows, part)
    tl.debug_barrier()


@triton.jit
def look(x, info, C: tl.constexpr):
    """Part the tile from now on if ``x`` (rows, columns), of all its rows, is not finite."""
    if tl.sum(tl.sum(x * 0.0, 1), 0) != 0.0:
        turn_to(info, 1, C)


@triton.jit
def in_part(info, C: tl.constexpr):
    """(rows,) bool: the rows of the part whose turn it is."""
    return field(info, tiles.FIRST, C) == part(info, C) - 1


@triton.jit
def copy_fields(info, to, C: tl.constexpr):
    """All that is known of a tile's rows but whose turn it is."""
    row = tl.arange(0, C.rows)
    tl.debug_barrier()
    for which in tl.static_range(tiles.PART):
        tl.store(to + which * C.rows + row, tl.load(info + which * C.rows + row))
    tl.debug_barrier()


@triton.jit
def begin_part(info, whole_info, C: tl.constexpr):
    """Make others than the rows whose turn it is as those past a tile's end; the first part of a step
    leaves in ``whole_info`` what is known of all."""
    if part(info, C) == 1:
        copy_fields(info, whole_info, C)
    row = tl.arange(0, C.rows)
    inside = field(whole_info, tiles.FIRST, C) == part(info, C) - 1
    for which in tl.static_range(tiles.PART):
        other = row * 0
        if which == tiles.FIRST:
            other = row
        elif which == tiles.SHOWN:
            other += 1
        elif (which == tiles.HIDDEN_ROW or which == tiles.STATE_ROW) or which == tiles.NEWEST:
            other -= 1
        value = tl.load(whole_info + which * C.rows + row)
        tl.store(info + which * C.rows + row, tl.where(inside, value, other))
    tl.debug_barrier()


@triton.jit
def end_part(info, whole_info, C: tl.constexpr):
    """Turn to the next part; 1 if there is none, and the tile is as it was, else 0."""
    row = tl.arange(0, C.rows)
    end = tl.max(tl.where(in_part(info, C), row, -1), 0) + 1
    depth = tl.max(tl.where(row == end, field(whole_info, tiles.DEPTH, C), 0), 0)
    is_done = 0
    if depth > 0:
        turn_to(info, end + 1, C)
    else:
        copy_fields(whole_info, info, C)
        turn_to(info, 1, C)
        is_done = 1
    return is_done
