"""The tile plan of a call, made on its device without waiting for it (kernels/tiles.py)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.call import RefineCall
from lares_kernels.tiles import divided, most_tiles

_GROUP = 8  # sequences whose rows one program writes down


class TilePlan(NamedTuple):
    """Which rows share a tile.

    Attributes:
        rows: (max_tiles, fields, tile rows) int32, what is known of each row.
        row_depth: (kept rows,) int32, steps of each packed row.
        tile_start: (max_tiles,) int32, packed row of each tile's first row.
        totals: (2,) int32, tiles and packed rows there are.
        max_tiles: tiles there can be, by the shapes alone.
    """

    rows: Tensor
    row_depth: Tensor
    tile_start: Tensor
    totals: Tensor
    max_tiles: int


def make_plan(call: RefineCall, tile_rows: int, longest: int) -> TilePlan:
    """Take the sequences in order of depth, deepest first, and put them into tiles of ``tile_rows``.

    Args:
        call: whose lengths, depths and ids lie on the device.
        tile_rows: a power of two from 16 to 128.
        longest: what no sequence's length exceeds; at most ``tile_rows``.
    """
    from lares_kernels.triton.kernels import tiles

    n_sequences = call.n_sequences
    blocks, programs, of_program = divided(n_sequences, tiles.BLOCK.value)
    most_rows = call.n_hidden_rows * call.rollouts
    max_tiles = most_tiles(most_rows, n_sequences, longest, tile_rows, blocks)
    order = None
    if call.num_steps is not None:
        order = torch.argsort(call.num_steps, descending=True, stable=True)
    # Packed hidden is found by the tokens before it, which are the kept ones unless there is an order.
    as_given = order is not None and not call.padded_length
    sizes = [
        tiles.SEQUENCE_FIELDS.value * n_sequences,
        tiles.SUMS.value * tiles.PROGRAMS.value,
        2,
        max_tiles,
        most_rows,
        max_tiles * tiles.ROW_FIELDS.value * tile_rows,
    ]
    memory = call.lengths.new_empty(sum(sizes), dtype=torch.int32)
    sequences, sums, totals, tile_start, row_depth, rows = memory.split(sizes)
    shared = (n_sequences, call.rollouts, longest, call.max_steps, of_program)
    tiles.plan_kernel[(programs,)](
        call.row_lengths,
        order,
        call.num_steps,
        sequences,
        sums,
        *shared,
        AS_GIVEN=as_given,
        ROWS=tile_rows,
        num_warps=1,
    )
    tiles.rows_kernel[(-(-n_sequences // _GROUP),)](
        call.row_lengths,
        order,
        call.num_steps,
        call.sequence_ids,
        call.lengths if call.padding_is_computed else None,
        sequences,
        sums,
        totals,
        tile_start,
        rows,
        row_depth,
        *shared,
        programs,
        max_tiles,
        call.padded_length,
        call.n_hidden_rows,
        most_rows,
        AS_GIVEN=as_given,
        GROUP=_GROUP,
        ROWS=tile_rows,
        LEFT=call.left,
        ZEROS=call.padding_is_read,
        num_warps=2,
    )
    rows = rows.view(max_tiles, tiles.ROW_FIELDS.value, tile_rows)
    return TilePlan(rows, row_depth, tile_start, totals, max_tiles)
