"""Make a call's tile plan on its device without waiting for it (kernels/tiles.py)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.gpu.arrays import aligned
from lares_kernels.gpu.scratch import unfilled
from lares_kernels.gpu.tiles import divided, most_tiles
from lares_kernels.spec.call import RefineCall
from lares_kernels.triton.fused.packing import NOTHING, Packing

_GROUP = 8  # sequences whose rows one program writes down


class TilePlan(NamedTuple):
    """Describe which rows share a tile.

    Attributes:
        rows: (max_tiles, fields, tile rows) int32, what is known of each row.
        row_depth: (rows,) int32, steps of each packed row.
        tile_start: (tiles,) int32, packed row of each tile's first row.
        totals: (2,) int32, tiles and packed rows there are.
        seed: (1,) int64, key of all draws.
        max_tiles: tiles there can be, by the shapes alone.
        memory: in which all of these lie.
    """

    rows: Tensor
    row_depth: Tensor
    tile_start: Tensor
    totals: Tensor
    seed: Tensor
    max_tiles: int
    memory: Tensor


def seed_halves(seed: int) -> tuple[int, int]:
    """Split a 64-bit seed into two signed 32-bit numbers, low half first."""
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


def _sizes(call: RefineCall, tile_rows: int, longest: int) -> tuple[int, list[int]]:
    """Return the most tiles there can be, and the sizes of a plan's parts, aligned: kernels are
    compiled for that."""
    from lares_kernels.triton.kernels import tiles

    n_sequences, most_rows = call.n_sequences, call.n_hidden_rows * call.options.rollouts
    blocks, _, _ = divided(n_sequences, tiles.BLOCK.value)
    max_tiles = most_tiles(most_rows, n_sequences, longest, tile_rows, blocks)
    of_row = tiles.ROW_FIELDS.value * tile_rows
    return max_tiles, [*map(aligned, (max_tiles * of_row, most_rows, max_tiles, 2, 2))]


def plan_in(memory: Tensor, call: RefineCall, tile_rows: int, longest: int) -> TilePlan:
    """Return the plan that :func:`make_plan` has made in ``memory`` for the same arguments."""
    max_tiles, sizes = _sizes(call, tile_rows, longest)
    rows, row_depth, tile_start, totals, seed = memory.split(sizes)
    rows = rows.view(max_tiles, -1, tile_rows)
    seed = seed[:2].view(torch.int64)
    return TilePlan(rows, row_depth, tile_start, totals[:2], seed, max_tiles, memory)


def make_plan(
    call: RefineCall, tile_rows: int, longest: int, packing: Packing | None = None
) -> TilePlan:
    """Take the sequences in order of depth, deepest first, and put them into tiles of ``tile_rows``.

    Args:
        call: whose lengths, depths and ids lie on the device.
        tile_rows: a power of two from 16 to 128.
        longest: what no sequence's length exceeds; at most ``tile_rows``.
        packing: of parameters, done by the same launch.
    """
    from lares_kernels.triton.fused.kernels.prepare import prepare_kernel
    from lares_kernels.triton.kernels import tiles

    n_sequences = call.n_sequences
    _, programs, of_program = divided(n_sequences, tiles.BLOCK.value)
    new = partial(unfilled, dtype=torch.int32, device=call.lengths.device)
    _, sizes = _sizes(call, tile_rows, longest)
    plan = plan_in(new(sum(sizes)), call, tile_rows, longest)
    order = None
    if call.num_steps is not None:
        order = torch.argsort(call.num_steps, descending=True, stable=True)
    # Packed hidden is found by the tokens before it, which are the kept ones unless there is an order.
    as_given = order is not None and not call.padded_length
    sequences = new(tiles.SEQUENCE_FIELDS.value, n_sequences)
    sums = new(tiles.SUMS.value, tiles.PROGRAMS.value)
    shared = (n_sequences, call.options.rollouts, longest, call.options.max_steps, of_program)
    prepare_kernel[(programs + (packing.programs if packing else 0),)](
        call.row_lengths,
        order,
        call.num_steps,
        sequences,
        sums,
        *shared,
        programs,
        plan.seed,
        call.seed_memory if isinstance(call.seed, Tensor) else plan.seed,
        *(0, 0) if isinstance(call.seed, Tensor) else seed_halves(call.seed),
        int(isinstance(call.seed, Tensor)),
        *(packing.pointers if packing else (None, None, None, ())),
        AS_GIVEN=as_given,
        ROWS=tile_rows,
        **(packing.sizes if packing else NOTHING),
        num_warps=1,
    )
    tiles.rows_kernel[(-(-n_sequences // _GROUP),)](
        call.row_lengths,
        order,
        call.num_steps,
        call.sequence_ids,
        call.lengths if call.computes_padding else None,
        sequences,
        sums,
        plan.totals,
        plan.tile_start,
        plan.rows,
        plan.row_depth,
        *shared,
        programs,
        plan.max_tiles,
        call.padded_length,
        call.n_hidden_rows,
        call.n_hidden_rows * call.options.rollouts,
        AS_GIVEN=as_given,
        GROUP=_GROUP,
        ROWS=tile_rows,
        LEFT=call.left,
        ZEROS=call.pads_with_zero_tokens,
        num_warps=2,
    )
    return plan
