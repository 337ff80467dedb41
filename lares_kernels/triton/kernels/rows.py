"""Read and write rows of a tile where they lie in the caller's tensors."""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import draws, tiles


@triton.jit
def tile_info(rows, tile, C: tl.constexpr):
    """Return where the fields of a tile's rows lie."""
    return rows + tile * (tiles.ROW_FIELDS * C.rows)


@triton.jit
def field(info, which: tl.constexpr, C: tl.constexpr):
    """Load one of the fields of ``kernels/tiles.py`` for every row of a tile, (rows,) int32.

    Fields are loaded where they are used: they stay in the L1 cache, and registers are scarce.
    """
    return tl.load(info + which * C.rows + tl.arange(0, C.rows))


@triton.jit
def mask_padding(x, info, C: tl.constexpr):
    """Return ``x`` (rows, d) with zeros in padding rows that count among a tile's."""
    if C.zeros:
        return tl.where(field(info, tiles.SHOWN, C)[:, None] != 0, x, 0.0)
    else:
        return x


@triton.jit
def tile_depth(info, C: tl.constexpr):
    """Return the steps that a tile runs: its first row's, since the deepest sequences come
    first."""
    return tl.load(info + tiles.DEPTH * C.rows)


@triton.jit
def addresses(base, row, C: tl.constexpr):
    """Return where rows (rows,) of an array of ``C.width`` columns lie, (rows, d)."""
    return base + row.to(tl.int64)[:, None] * C.width + tl.arange(0, C.d)[None, :]


@triton.jit
def real(mask, C: tl.constexpr):
    """Mark the real columns of rows where ``mask`` (rows,) holds, (rows, d) bool."""
    return mask[:, None] & (tl.arange(0, C.d)[None, :] < C.width)


@triton.jit
def load_rows(base, row, mask, C: tl.constexpr):
    """Load rows in float32, with zeros where there are none."""
    loaded = tl.load(addresses(base, row, C), mask=real(mask, C), other=0.0)
    return loaded.to(tl.float32)


@triton.jit
def store_rows(base, row, mask, values, C: tl.constexpr):
    """Write rows where ``mask`` holds."""
    tl.store(addresses(base, row, C), values, mask=real(mask, C))


@triton.jit
def first_state(
    state, state_row, stream, position, scale, seed, DRAWN: tl.constexpr, C: tl.constexpr
):
    """Return ``s_0``: the caller's, drawn, or zero."""
    mask = state_row >= 0
    if state is not None:
        return load_rows(state, state_row, mask, C)
    elif DRAWN:
        drawn = draws.initial_state(stream, position, scale, seed, C.rows, C.d)
        return tl.where(real(mask, C), drawn, 0.0)
    else:
        return tl.zeros((C.rows, C.d), tl.float32)
