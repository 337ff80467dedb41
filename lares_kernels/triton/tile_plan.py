"""The tile plan of a call, made on its device without waiting for it (kernels/tiles.py)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.call import RefineCall
from lares_kernels.scratch import unfilled
from lares_kernels.tiles import most_tiles

_SCAN_BLOCK = 1024


class TilePlan(NamedTuple):
    """Which rows share a tile.

    Attributes:
        rows: (max_tiles, fields, tile rows) int32, what is known of each row.
        row_depth: (kept rows,) int32, steps of each packed row.
        starts: (S + 1,) int32, packed row of each sequence in the order taken; the last is their sum.
        tile_start: (max_tiles,) int32, packed row of each tile's first row.
        tile_count: (1,) int32, tiles there are.
        max_tiles: tiles there can be, by the shapes alone.
    """

    rows: Tensor
    row_depth: Tensor
    starts: Tensor
    tile_start: Tensor
    tile_count: Tensor
    max_tiles: int


def make_plan(call: RefineCall, tile_rows: int, longest: int) -> TilePlan:
    """Order the sequences by depth, deepest first, and cut them into tiles of ``tile_rows``.

    Args:
        call: whose lengths, depths and ids lie on the device.
        tile_rows: a power of two of at least 16.
        longest: what no sequence's length exceeds; at most ``tile_rows``.
    """
    from lares_kernels.triton.kernels.tiles import ROW_FIELDS, plan_kernel, rows_kernel

    n_sequences, n_groups = call.n_sequences, call.lengths.shape[0]
    most_rows = call.n_hidden_rows * call.rollouts
    max_tiles = most_tiles(most_rows, n_sequences, longest, tile_rows)
    order = None
    if call.num_steps is not None:
        order = torch.argsort(call.num_steps, descending=True, stable=True)

    def numbers(*shape: int) -> Tensor:
        return unfilled(shape, dtype=torch.int32, device=call.lengths.device)

    starts = numbers(n_sequences + 1)
    hidden_starts = None if call.padded_length else numbers(n_groups + 1)
    tile_sequence, tile_count = numbers(max_tiles + 1), numbers(1)
    plan_kernel[(1,)](
        call.row_lengths,
        order,
        starts,
        hidden_starts,
        numbers(2, n_sequences + 1),
        tile_sequence,
        tile_count,
        n_sequences,
        n_groups,
        call.rollouts,
        longest,
        max_tiles,
        ROWS=tile_rows,
        BLOCK=_SCAN_BLOCK,
        num_warps=8,
    )
    rows = numbers(max_tiles, ROW_FIELDS.value, tile_rows)
    row_depth, tile_start = numbers(most_rows), numbers(max_tiles)
    rows_kernel[(max_tiles,)](
        starts,
        hidden_starts,
        order,
        call.sequence_ids,
        call.num_steps,
        call.lengths if call.padding_is_computed else None,
        tile_sequence,
        tile_count,
        tile_start,
        rows,
        row_depth,
        call.rollouts,
        call.padded_length,
        call.n_hidden_rows,
        most_rows,
        call.max_steps,
        ROWS=tile_rows,
        LEFT=call.left,
        ZEROS=call.padding_is_read,
        num_warps=1,
    )
    return TilePlan(rows, row_depth, starts, tile_start, tile_count, max_tiles)
