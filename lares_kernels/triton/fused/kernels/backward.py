"""Run all steps of the recurrence backward; each step is recomputed from its saved state."""

import triton
import triton.language as tl

from lares_kernels.triton.fused.kernels import apart, layer
from lares_kernels.triton.fused.kernels.layer_backward import (
    Memory,
    layer_backward,
    load_tile,
    norm_backward,
    recompute_layer,
    store_columns,
    store_tile,
)
from lares_kernels.triton.kernels import elementwise, tiles
from lares_kernels.triton.kernels.rounding import operand
from lares_kernels.triton.kernels.rows import (
    field,
    load_rows,
    mask_padding,
    store_rows,
    tile_depth,
    tile_info,
)


@triton.jit
def layers_backward(x, g, memory, place, kept_rows, start, info, step, at, C: tl.constexpr):
    """Compute all layers of a step again from ``x`` and differentiate them.

    ``place`` is the step's index among those that units and sides are written for; ``start`` points to
    the tile's first packed row; ``at`` addresses the step's draws.
    """
    tile_size: tl.constexpr = C.tapes * C.rows * C.d
    gradient = memory.scratch + C.layers * tile_size
    apart.look(apart.trace(x) + apart.trace(g), info, memory.gradients, C)
    x = apart.replaced(x, 0.0, info, C)
    store_tile(gradient, 0, mask_padding(apart.replaced(g, 0.0, info, C), info, C), C)
    for index in tl.range(C.layers):
        own = Memory(
            memory.transforms,
            memory.matrices + index * (C.layer_rows * C.d),
            memory.vectors + index * C.layer_vector,
            None,
            memory.scratch + index * tile_size,
            None,
            None,
        )
        x = recompute_layer(x, own, info, layer.At(index, at.step, at.seed), C)
    tl.debug_barrier()  # what one thread has left in scratch another may read
    for back in tl.range(C.layers):
        index = C.layers - 1 - back
        row = (place * C.layers + index) * kept_rows.to(tl.int64) + tl.load(start)
        own = Memory(
            memory.transforms,
            memory.matrices + index * (C.layer_rows * C.d),
            memory.vectors + index * C.layer_vector,
            memory.gradients + index * C.layer_vector,
            memory.scratch + index * tile_size,
            memory.units + row * C.layer_rows,
            memory.sides + row * (C.sides * C.d),
        )
        layer_backward(gradient, own, info, layer.At(index, at.step, at.seed), step, C)
    return mask_padding(apart.replaced(load_tile(gradient, 0, C), float("nan"), info, C), info, C)


@triton.jit
def load_hidden(hidden, info, C: tl.constexpr):
    """Load ``H`` of a tile's rows."""
    hidden_row = field(info, tiles.HIDDEN_ROW, C)
    return mask_padding(load_rows(hidden, hidden_row, hidden_row >= 0, C), info, C)


@triton.jit
def load_state(kept, kept_rows, info, step, C: tl.constexpr):
    """Load the saved states ``s_{t-1}`` of a tile's rows that run ``step``."""
    before = kept + (step - 1) * kept_rows.to(tl.int64) * C.width
    running = field(info, tiles.DEPTH, C) >= step
    return load_rows(before, field(info, tiles.KEPT_ROW, C), running, C)


@triton.jit
def concat_backward(g_adapted, state, hidden, matrices, concat_rows, info, step, C: tl.constexpr):
    """Return gradients of the inputs of ``W [s ; H] + b``: (g_state, g_hidden).

    It writes the operands of W's gradient to ``concat_rows``: the gradient of the output, the state and
    ``H``.
    """
    dtype = matrices.dtype.element_ty
    g_adapted = operand(g_adapted, dtype, C.tf32)
    width: tl.constexpr = 3 * C.d
    store_columns(concat_rows, info, step, 0, g_adapted, width, C.d, C)
    store_columns(concat_rows, info, step, C.d, operand(state, dtype, C.tf32), width, C.d, C)
    store_columns(concat_rows, info, step, 2 * C.d, operand(hidden, dtype, C.tf32), width, C.d, C)
    of_state = layer.matrix(matrices, C.concat_row, C.d, C.d)
    of_hidden = layer.matrix(matrices, C.concat_row + C.d, C.d, C.d)
    return layer.product(g_adapted, of_state, C), layer.product(g_adapted, of_hidden, C)


@triton.jit
def step_backward(
    g, kept, hidden, memory, concat_rows, place, kept_rows, start, info, step, at, C: tl.constexpr
):
    """Differentiate ``s_t`` with respect to ``s_{t-1}`` and ``H``: (g_state, g_hidden).

    Rows that do not run have g = 0, and keep it.
    """
    matrices, vectors = memory.matrices, memory.vectors
    adapted = layer.adapt(
        load_state(kept, kept_rows, info, step, C),
        load_hidden(hidden, info, C),
        matrices,
        vectors,
        C,
    )
    g_x = layers_backward(
        mask_padding(layer.norm(adapted, vectors, C.core_norm_at, C), info, C),
        *(g, memory, place, kept_rows, start, info, step, at, C),
    )
    # Read and adapted once more, rather than held in registers meanwhile.
    state = load_state(kept, kept_rows, info, step, C)
    there = load_hidden(hidden, info, C)
    adapted = layer.adapt(state, there, matrices, vectors, C)
    normalised, inverse_std = elementwise.normalise(adapted, C.eps, C.d, C.width)
    g_adapted = norm_backward(g_x, normalised, inverse_std, memory, C.core_norm_at, C)
    if C.concat:
        rows = concat_rows + (place * kept_rows.to(tl.int64) + tl.load(start)) * (3 * C.d)
        return concat_backward(g_adapted, state, there, matrices, rows, info, step, C)
    elif C.gated:
        gate = tl.sigmoid(tl.load(vectors + C.gate_at))
        # Padded columns of both are zero, so what the gradient has there does not count.
        total = tl.sum(tl.sum(g_adapted * (state - there), 1), 0) * gate * (1.0 - gate)
        to = memory.gradients + C.gate_at
        tl.store(to, tl.load(to) + total)
        return gate * g_adapted, (1.0 - gate) * g_adapted
    elif C.adds:
        g_adapted = 0.5 * g_adapted
        return g_adapted, g_adapted
    else:
        tl.static_assert(False, "no kernel has this adapter")


@triton.jit
def output_gradients(g_trajectory, g_state, info, step, max_steps, C: tl.constexpr):
    """Return the gradient of ``s_t`` from the call's outputs: at a sequence's last step also of
    all that repeats it."""
    depth = field(info, tiles.DEPTH, C)
    ending = depth == step
    g = tl.zeros((C.rows, C.d), tl.float32)
    if g_state is not None:
        g = load_rows(g_state, field(info, tiles.STATE_ROW, C), ending, C)
    if g_trajectory is not None:
        newest = field(info, tiles.NEWEST, C)
        at = newest * max_steps + (step - 1)
        g += load_rows(g_trajectory, at, (newest >= 0) & (depth >= step), C)
        if tl.max(ending.to(tl.int32), 0) > 0:
            for later in range(step + 1, max_steps + 1):
                at = newest * max_steps + (later - 1)
                g += load_rows(g_trajectory, at, (newest >= 0) & ending, C)
    return g


@triton.jit(
    do_not_specialize=[
        *("seed", "max_steps", "steps_done", "kept_rows"),
        *("n_hidden_rows", "first_step", "last_step"),
    ]
)
def backward_kernel(
    hidden,
    matrices,
    vectors,
    transforms,
    rows,
    tile_start,
    totals,
    kept,
    g_trajectory,
    g_state,
    carry,
    g_hidden,
    g_first,
    units,
    sides,
    concat_rows,
    scratch,
    gradients,
    seed,
    max_steps,
    steps_done,
    kept_rows,
    n_hidden_rows,
    first_step,
    last_step,
    C: tl.constexpr,
):
    """Differentiate steps ``last_step .. first_step`` of every tile; programs take tiles in turn.

    Args:
        hidden, matrices, vectors, transforms, rows, totals, kept: as in forward.
        tile_start: of the tile plan.
        g_trajectory: (S, max_steps, width) float32, or None for zero.
        g_state: gradient of the final states, rows like them, float32; or None for zero.
        carry: (kept_rows, width) float32, gradient of the state between two launches, or None where
            one launch does all steps.
        g_hidden: (rollouts, n_hidden_rows, width) float32, added to.
        g_first: gradient of ``s_0`` out, rows like states, or None.
        units: (steps, layers, kept_rows, layer_rows) out, in the products' type: see
            ``layer_backward.py``.
        sides: (steps, layers, kept_rows, 4 d) out, in the products' type.
        concat_rows: (steps, kept_rows, 3 d) out, in the products' type, or None.
        scratch: (programs, tapes layers + 1, rows, d) float32.
        gradients: (programs, gradient_size) float32, of LayerNorms, gate, filter and bands, added to.
        steps_done: as in forward.
    """
    scratch += tl.program_id(0).to(tl.int64) * ((C.tapes * C.layers + 1) * C.rows * C.d)
    gradients += tl.program_id(0).to(tl.int64) * C.gradient_size
    memory = Memory(transforms, matrices, vectors, gradients, scratch, units, sides)
    tile = tl.program_id(0)
    while tile < tl.load(totals):
        info = tile_info(rows, tile, C)
        start = tile_start + tile
        if C.recurrent:
            state_row = field(info, tiles.STATE_ROW, C)
            g = tl.zeros((C.rows, C.d), tl.float32)
            if carry is not None:
                # `state_row * 0`: see the masks of weight_gradients.py.
                later = (state_row >= 0) & (last_step + state_row * 0 < max_steps)
                g = load_rows(carry, tl.load(start) + tl.arange(0, C.rows), later, C)
            step = tl.minimum(tile_depth(info, C), last_step)
            while step >= first_step:
                tl.debug_barrier()  # scratch and gradients of the step before are read and written
                g, g_here = step_backward(
                    g + output_gradients(g_trajectory, g_state, info, step, max_steps, C),
                    *(kept, hidden, memory, concat_rows, step - first_step, kept_rows, start, info),
                    *(step, layer.At(0, step + steps_done, seed), C),
                )
                rollout = (field(info, tiles.STREAM, C) >> 24) & 0xFF
                row = rollout * n_hidden_rows + field(info, tiles.HIDDEN_ROW, C)
                running = field(info, tiles.DEPTH, C) >= step
                store_rows(g_hidden, row, running, g_here + load_rows(g_hidden, row, running, C), C)
                step -= 1
            state_row = field(info, tiles.STATE_ROW, C)
            if carry is not None:
                packed = tl.load(start) + tl.arange(0, C.rows)
                store_rows(carry, packed, state_row >= 0, g, C)
            if g_first is not None:
                first = (state_row >= 0) & (first_step + state_row * 0 == 1)
                store_rows(g_first, state_row, first, g, C)
        else:
            tl.debug_barrier()
            g = layers_backward(
                load_hidden(hidden, info, C),
                output_gradients(g_trajectory, g_state, info, 1, 1, C),
                *(memory, 0, kept_rows, start, info, 0, layer.At(0, 0, seed), C),
            )
            hidden_row = field(info, tiles.HIDDEN_ROW, C)
            store_rows(g_hidden, hidden_row, hidden_row >= 0, g, C)
        tile += tl.num_programs(0)
