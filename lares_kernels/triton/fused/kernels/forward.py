"""Run all steps of the recurrence in one launch; a tile's state stays in registers throughout."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lares_kernels.triton.fused.kernels import apart, layer
from lares_kernels.triton.kernels import elementwise, tiles
from lares_kernels.triton.kernels.rows import (
    field,
    first_state,
    load_rows,
    mask_padding,
    store_rows,
    tile_depth,
    tile_info,
)


@triton.jit
def step_input(state, hidden, matrices, vectors, C: tl.constexpr):
    """Compute ``LayerNorm_core(adapter(s, H))``."""
    adapted = layer.adapt(state, hidden, matrices, vectors, C)
    normalised, _ = elementwise.normalise(adapted, C.eps, C.d, C.width)
    weight = layer.vector(vectors, C.core_norm_at, C.d)
    return normalised * weight + layer.vector(vectors, C.core_norm_at + C.d, C.d)


@triton.jit
def held_layers(matrices, C: tl.constexpr):
    """Return the matrices for :func:`all_layers`: their array, or all of it on the chip.

    Loaded before the loops that use them they stay there; loaded inside, a single store in the loop
    makes the compiler reload them each time.
    """
    if C.resident:
        held = ()
        for index in tl.static_range(C.layers):
            held = held + (layer.resident(matrices + index * (C.layer_rows * C.d), C),)
        return held
    else:
        return matrices


@triton.jit
def all_layers(x, transforms, held, vectors, info, step, seed, C: tl.constexpr):
    """Apply the layers of one step."""
    apart.look(apart.trace(x), info, None, C)
    x = apart.replaced(x, 0.0, info, C)
    tl.debug_barrier()  # no layer's data is loaded before this, to be held in registers
    if C.resident:
        for index in tl.static_range(C.layers):
            own = vectors + index * C.layer_vector
            at = layer.At(index, step, seed)
            x = layer.layer_forward(x, transforms, held[index], own, info, at, C)
    else:
        for index in tl.range(C.layers):
            matrices = held + index * (C.layer_rows * C.d)
            own = vectors + index * C.layer_vector
            at = layer.At(index, step, seed)
            x = layer.layer_forward(x, transforms, matrices, own, info, at, C)
    tl.debug_barrier()  # and the rows' numbers are read again
    return apart.replaced(x, float("nan"), info, C)


class Call(NamedTuple):
    """Hold what the tiles of a call share: arguments of :func:`forward_kernel`, and what it loaded.

    ``held`` is the result of :func:`held_layers`.
    """

    held: Any
    hidden: Any
    state: Any
    matrices: Any
    vectors: Any
    transforms: Any
    rows: Any
    trajectory: Any
    last: Any
    final: Any
    kept: Any
    seed: Any
    state_scale: Any
    max_steps: Any
    steps_done: Any
    kept_rows: Any


@triton.jit
def refine_step(x, call, info, step, C: tl.constexpr):
    """Compute ``s_t`` of a tile from ``s_{t-1}``.

    Finished sequences run on with the others, but write nothing.
    """
    if call.kept is not None:
        running = field(info, tiles.DEPTH, C) >= step
        before = call.kept + (step - 1) * call.kept_rows.to(tl.int64) * C.width
        store_rows(before, field(info, tiles.KEPT_ROW, C), running, x, C)
    hidden_row = field(info, tiles.HIDDEN_ROW, C)
    there = mask_padding(load_rows(call.hidden, hidden_row, hidden_row >= 0, C), info, C)
    x = mask_padding(step_input(x, there, call.matrices, call.vectors, C), info, C)
    x = all_layers(
        x, call.transforms, call.held, call.vectors, info, step + call.steps_done, call.seed, C
    )
    depth = field(info, tiles.DEPTH, C)
    newest = field(info, tiles.NEWEST, C)
    at = newest * call.max_steps + (step - 1)
    store_rows(call.trajectory, at, (newest >= 0) & (depth >= step), x, C)
    ending = depth == step
    if tl.max(ending.to(tl.int32), 0) > 0:
        for later in range(step + 1, call.max_steps + 1):
            at = newest * call.max_steps + (later - 1)
            store_rows(call.trajectory, at, (newest >= 0) & ending, x, C)
        if call.last is not None:
            store_rows(call.last, newest, (newest >= 0) & ending, x, C)
        if call.final is not None:
            store_rows(call.final, field(info, tiles.STATE_ROW, C), ending, x, C)
    return x


@triton.jit
def refine_tile(tile, call, DRAWN: tl.constexpr, C: tl.constexpr):
    """Run all steps of one tile."""
    info = tile_info(call.rows, tile, C)
    if C.recurrent:
        state_row = field(info, tiles.STATE_ROW, C)
        stream = field(info, tiles.STREAM, C)
        position = field(info, tiles.POSITION, C)
        scale = call.state_scale
        x = first_state(call.state, state_row, stream, position, scale, call.seed, DRAWN, C)
        x = mask_padding(x, info, C)
        if C.resident:
            for step in range(1, tile_depth(info, C) + 1):
                x = refine_step(x, call, info, step, C)
        else:
            step = 1
            while step <= tile_depth(info, C):
                x = refine_step(x, call, info, step, C)
                step += 1
    else:
        hidden_row = field(info, tiles.HIDDEN_ROW, C)
        x = mask_padding(load_rows(call.hidden, hidden_row, hidden_row >= 0, C), info, C)
        x = all_layers(x, call.transforms, call.held, call.vectors, info, 0, call.seed, C)
        newest = field(info, tiles.NEWEST, C)
        store_rows(call.trajectory, newest, newest >= 0, x, C)
        if call.last is not None:
            store_rows(call.last, newest, newest >= 0, x, C)
        if call.final is not None:
            state_row = field(info, tiles.STATE_ROW, C)
            store_rows(call.final, state_row, state_row >= 0, x, C)


@triton.jit(do_not_specialize=["seed", "max_steps", "steps_done", "kept_rows"])
def forward_kernel(
    hidden,
    state,
    matrices,
    vectors,
    transforms,
    rows,
    totals,
    trajectory,
    last,
    final,
    kept,
    seed,
    state_scale,
    max_steps,
    steps_done,
    kept_rows,
    DRAWN: tl.constexpr,
    C: tl.constexpr,
):
    """Refine every tile; programs take tiles in turn.

    The end of a range is held in a register, a condition loaded each time is not; but only
    ranges keep resident weights in place.

    Args:
        hidden: rows of ``C.width``, in the caller's order and type.
        state: ``s_0``, rows like ``hidden``; or None: drawn where ``DRAWN``, else zero.
        matrices, vectors: packed parameters.
        transforms: as ``tile_transforms.py`` makes them; None for ``attention``.
        rows, totals: the tile plan.
        trajectory: (S, max_steps, width) float32 out.
        last: (S, width) float32 out, the trajectory's last states; or None.
        final: rows like ``state`` float32 out, or None.
        kept: (max_steps, kept_rows, width) float32 out, ``s_0 .. s_{T-1}`` by ``KEPT_ROW``, or None.
        seed: () int64, key of all draws: in memory, since a captured graph finds another at each
            replay.
        state_scale: of the drawn ``s_0``.
        steps_done: added to the step that draws are addressed by.
    """
    call = Call(
        held_layers(matrices, C),
        *(hidden, state, matrices, vectors, transforms, rows, trajectory, last, final, kept),
        *(seed, state_scale, max_steps, steps_done, kept_rows),
    )
    if C.resident:
        for tile in range(tl.program_id(0), tl.load(totals), tl.num_programs(0)):
            refine_tile(tile, call, DRAWN, C)
    else:
        tile = tl.program_id(0)
        while tile < tl.load(totals):
            refine_tile(tile, call, DRAWN, C)
            tile += tl.num_programs(0)
