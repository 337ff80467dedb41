"""All steps of the recurrence backward: each step is computed again from its kept state."""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import draws, elementwise, layer, tiles
from lares_kernels.triton.kernels.layer_backward import (
    SIDES,
    layer_again,
    layer_backward,
    norm_backward,
    store_columns,
)
from lares_kernels.triton.kernels.rows import field, load_rows, store_rows


@triton.jit
def layers_backward(
    x,
    g,
    matrices,
    vectors,
    gradients,
    scratch,
    units,
    sides,
    place,
    kept_rows,
    token,
    mask,
    first,
    stream,
    position,
    step,
    seed,
    C: tl.constexpr,
):
    """Compute all layers of a step again from ``x`` and differentiate them.

    ``place`` is the step's number among those that units and sides are written for.
    """
    tile_size: tl.constexpr = 3 * C.rows * C.d
    for index in tl.range(C.layers):
        x = layer_again(
            x,
            matrices + index * (C.layer_rows * C.d),
            vectors + index * C.layer_vector,
            scratch + index * tile_size,
            first,
            stream,
            position,
            index,
            step,
            seed,
            C,
        )
    tl.debug_barrier()  # what one thread has left in scratch another may read
    for back in tl.range(C.layers):
        index = C.layers - 1 - back
        row = (place * C.layers + index) * kept_rows.to(tl.int64)
        g = layer_backward(
            g,
            matrices + index * (C.layer_rows * C.d),
            vectors + index * C.layer_vector,
            gradients + index * C.layer_vector,
            scratch + index * tile_size,
            units + row * C.layer_rows,
            sides + row * (SIDES * C.d),
            token,
            mask,
            first,
            stream,
            position,
            index,
            step,
            seed,
            C,
        )
    return g


@triton.jit
def concat_backward(g_adapted, state, hidden, matrices, concat_rows, token, mask, C: tl.constexpr):
    """Gradients of the inputs of ``W [s ; H] + b``: (g_state, g_hidden).

    Leaves in ``concat_rows`` what the gradient of W is a product of: the gradient of the output, the
    state and ``H``.
    """
    dtype = matrices.dtype.element_ty
    g_adapted = g_adapted.to(dtype)
    width: tl.constexpr = 3 * C.d
    store_columns(concat_rows, token, mask, 0, g_adapted, width, C.d)
    store_columns(concat_rows, token, mask, C.d, state.to(dtype), width, C.d)
    store_columns(concat_rows, token, mask, 2 * C.d, hidden.to(dtype), width, C.d)
    of_state = layer.matrix(matrices, C.concat_row, C.d, C.d)
    of_hidden = layer.matrix(matrices, C.concat_row + C.d, C.d, C.d)
    return layer.product(g_adapted, of_state, C), layer.product(g_adapted, of_hidden, C)


@triton.jit
def step_backward(
    g,
    before,
    hidden,
    hidden_row,
    matrices,
    vectors,
    gradients,
    scratch,
    units,
    sides,
    concat_rows,
    place,
    kept_rows,
    token,
    running,
    first,
    stream,
    position,
    step,
    seed,
    C: tl.constexpr,
):
    """Differentiate ``s_t`` with respect to ``s_{t-1}`` and ``H``: (g_state, g_hidden).

    ``before`` points to the kept states ``s_{t-1}``.
    """
    state = load_rows(before, token, running, C)
    there = load_rows(hidden, hidden_row, hidden_row >= 0, C)
    adapted = layer.adapt(state, there, matrices, vectors, C)
    x = layer.norm(adapted, vectors, C.core_norm_at, C)
    g_x = layers_backward(
        x,
        tl.where(running[:, None], g, 0.0),
        matrices,
        vectors,
        gradients,
        scratch,
        units,
        sides,
        place,
        kept_rows,
        token,
        running,
        first,
        stream,
        position,
        step,
        seed,
        C,
    )
    # Read and adapted once more, rather than held in registers meanwhile.
    state = load_rows(before, token, running, C)
    there = load_rows(hidden, hidden_row, hidden_row >= 0, C)
    adapted = layer.adapt(state, there, matrices, vectors, C)
    normalised, inverse_std = elementwise.normalise(adapted, C.eps, C.d, C.width)
    g_adapted = norm_backward(g_x, normalised, inverse_std, vectors, gradients, C.core_norm_at, C)
    if C.concat:
        rows = concat_rows + place * kept_rows.to(tl.int64) * (3 * C.d)
        g_state, g_hidden = concat_backward(
            g_adapted, state, there, matrices, rows, token, running, C
        )
    elif C.gated:
        gate = tl.sigmoid(tl.load(vectors + C.gate_at))
        if C.width != C.d:
            columns = tl.arange(0, C.d)[None, :] < C.width
            g_adapted = tl.where(columns, g_adapted, 0.0)
        total = tl.sum(tl.sum(g_adapted * (state - there), 1), 0) * gate * (1.0 - gate)
        to = gradients + C.gate_at
        tl.store(to, tl.load(to) + total)
        g_state, g_hidden = gate * g_adapted, (1.0 - gate) * g_adapted
    else:
        g_state = 0.5 * g_adapted
        g_hidden = g_state
    return tl.where(running[:, None], g_state, g), g_hidden


@triton.jit(
    do_not_specialize=[
        "seed_low",
        "seed_high",
        "max_steps",
        "kept_rows",
        "n_hidden_rows",
        "first_step",
        "last_step",
    ]
)
def backward_kernel(
    hidden,
    matrices,
    vectors,
    rows,
    tile_start,
    tile_count,
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
    seed_low,
    seed_high,
    max_steps,
    kept_rows,
    n_hidden_rows,
    first_step,
    last_step,
    C: tl.constexpr,
):
    """Differentiate steps ``last_step .. first_step`` of every tile; programs take tiles in turn.

    Args:
        hidden, matrices, vectors, rows, tile_start, tile_count, kept: as in forward.
        g_trajectory: (S, max_steps, width) float32, or None for zero.
        g_state: gradient of the final states, rows like them, float32; or None for zero.
        carry: (kept_rows, width) float32, gradient of the state between two launches, or None where
            one launch does all steps.
        g_hidden: (rollouts, n_hidden_rows, width) float32 out, added to after the first launch.
        g_first: gradient of ``s_0`` out, rows like states, or None.
        units: (steps, layers, kept_rows, layer_rows) out, in the products' type: see
            ``layer_backward.py``.
        sides: (steps, layers, kept_rows, 4 d) out, likewise.
        concat_rows: (steps, kept_rows, 3 d) out, likewise, or None.
        scratch: (programs, layers, 3, rows, d) float32.
        gradients: (programs, vector_size) float32, of LayerNorms and gate, added to.
    """
    seed = draws.join_seed(seed_low, seed_high)
    scratch += tl.program_id(0).to(tl.int64) * (C.layers * 3 * C.rows * C.d)
    gradients += tl.program_id(0) * C.vector_size
    for tile in range(tl.program_id(0), tl.load(tile_count), tl.num_programs(0)):
        hidden_row = field(rows, tile, tiles.HIDDEN_ROW, C)
        stream = field(rows, tile, tiles.STREAM, C)
        position = field(rows, tile, tiles.POSITION, C)
        first = field(rows, tile, tiles.FIRST, C)
        depth = field(rows, tile, tiles.DEPTH, C)
        newest = field(rows, tile, tiles.NEWEST, C)
        state_row = field(rows, tile, tiles.STATE_ROW, C)
        token = tl.load(tile_start + tile) + tl.arange(0, C.rows)
        real = state_row >= 0
        begins = last_step == max_steps
        rollout_row = ((stream >> 24) & 0xFF) * n_hidden_rows + hidden_row

        g = tl.zeros((C.rows, C.d), tl.float32)
        if g_state is not None:
            g = load_rows(g_state, state_row, real & begins, C)
        if carry is not None:
            g += load_rows(carry, token, real & (last_step < max_steps), C)
        if C.recurrent:
            g_there = load_rows(g_hidden, rollout_row, real & (last_step < max_steps), C)
            deepest = tl.max(depth, 0)
            # Steps that no sequence of the tile runs hand gradients on to its last one.
            for step in range(tl.maximum(deepest + 1, first_step), last_step + 1):
                if g_trajectory is not None:
                    at = newest * max_steps + (step - 1)
                    g += load_rows(g_trajectory, at, newest >= 0, C)
            last = tl.minimum(deepest, last_step)
            for back in range(0, last - first_step + 1):
                step = last - back
                if g_trajectory is not None:
                    at = newest * max_steps + (step - 1)
                    g += load_rows(g_trajectory, at, newest >= 0, C)
                tl.debug_barrier()  # scratch and gradients of the step before are read and written
                g, g_here = step_backward(
                    g,
                    kept + (step - 1) * kept_rows.to(tl.int64) * C.width,
                    hidden,
                    hidden_row,
                    matrices,
                    vectors,
                    gradients,
                    scratch,
                    units,
                    sides,
                    concat_rows,
                    step - first_step,
                    kept_rows,
                    token,
                    depth >= step,
                    first,
                    stream,
                    position,
                    step,
                    seed,
                    C,
                )
                g_there += g_here
            store_rows(g_hidden, rollout_row, real, g_there, C)
            if carry is not None:
                store_rows(carry, token, real, g, C)
            if g_first is not None:
                store_rows(g_first, state_row, real & (first_step == 1), g, C)
        else:
            if g_trajectory is not None:
                g += load_rows(g_trajectory, newest, newest >= 0, C)
            tl.debug_barrier()
            g = layers_backward(
                load_rows(hidden, hidden_row, real, C),
                g,
                matrices,
                vectors,
                gradients,
                scratch,
                units,
                sides,
                first_step - first_step,
                kept_rows,
                token,
                real,
                first,
                stream,
                position,
                0,
                seed,
                C,
            )
            store_rows(g_hidden, hidden_row, real, g, C)
