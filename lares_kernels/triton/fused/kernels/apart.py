"""Keep sequences of a tile apart from what is not finite in one of them.

In products of a tile's rows another sequence's numbers are multiplied by zero, and zero times NaN or
infinity is NaN. So *spoilt* rows pass through a step's layers as zeros, and are NaN afterwards: in
forward, a row that is not finite at the layers' input and those that attend to it; in backward, all
rows of a sequence with such a number in the layers' input or in the gradient of their output. Then all
gradients of weights are NaN.

Infinity that arises inside the layers, such as in float16, reaches the tile's other sequences as NaN.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import tiles
from lares_kernels.triton.kernels.rows import field


@triton.jit
def trace(x):
    """Return (rows,) zeros, with NaN for rows of ``x`` that are not finite."""
    return tl.sum(x * 0.0, 1)


@triton.jit
def look(trace, info, gradients, C: tl.constexpr):
    """Mark the rows that those whose ``trace`` is NaN would spoil.

    Forward, where ``gradients`` is None, these and the later ones of their sequences, or all of these
    where windows mix; backward all of their sequences, and the program's own gradients become NaN.
    """
    if tl.sum(trace, 0) != 0.0:
        zero = 0
        if gradients is not None:
            # Zero, which the compiler cannot know: known addresses are held in registers. Forward
            # they do not.
            zero = tl.load(info + tiles.FIRST * C.rows)
            info += zero
        row = tl.arange(0, C.rows)
        at = info + tiles.SPOILT * C.rows
        tl.debug_barrier()
        tl.store(at + row, (trace != 0.0).to(tl.int32))
        tl.debug_barrier()
        # One row after the other: a block of pairs would take registers from live data.
        spoilt = row * 0
        for other in tl.range(0, C.rows):
            first = tl.load(info + tiles.FIRST * C.rows + other)
            reached = field(info, tiles.FIRST, C) == first
            if gradients is None and C.window == 0:
                reached = reached & (row >= other)
            spoilt = tl.where(reached, tl.maximum(spoilt, tl.load(at + other)), spoilt)
        tl.debug_barrier()
        tl.store(at + row, spoilt)
        if gradients is not None:
            for start in tl.range(0, C.gradient_size, 16):
                tl.store(gradients + zero + start + tl.arange(0, 16), float("nan"))
        tl.debug_barrier()


@triton.jit
def replaced(x, value, info, C: tl.constexpr):
    """Return ``x`` (rows, d) with ``value`` in spoilt rows."""
    return tl.where(field(info, tiles.SPOILT, C)[:, None] == 0, x, value)
