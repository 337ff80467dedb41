"""All steps of the recurrence in one launch: a tile's state stays in registers from first to last."""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import elementwise, layer, tiles
from lares_kernels.triton.kernels.rows import field, first_state, load_rows, store_rows


@triton.jit
def step_input(state, hidden, matrices, vectors, C: tl.constexpr):
    """``LayerNorm_core(adapter(s, H))``."""
    adapted = layer.adapt(state, hidden, matrices, vectors, C)
    normalised, _ = elementwise.normalise(adapted, C.eps, C.d, C.width)
    weight = layer.vector(vectors, C.core_norm_at, C.d)
    return normalised * weight + layer.vector(vectors, C.core_norm_at + C.d, C.d)


@triton.jit
def all_layers(x, matrices, vectors, first, stream, position, step, seed, C: tl.constexpr):
    """The layers of one step."""
    for index in tl.range(C.layers):
        x = layer.layer_forward(
            x,
            matrices + index * (C.layer_rows * C.d),
            vectors + index * C.layer_vector,
            first,
            stream,
            position,
            index,
            step,
            seed,
            C,
        )
    return x


@triton.jit(do_not_specialize=["seed_low", "seed_high", "max_steps", "kept_rows"])
def forward_kernel(
    hidden,
    state,
    matrices,
    vectors,
    rows,
    tile_start,
    tile_count,
    trajectory,
    final,
    kept,
    seed_low,
    seed_high,
    state_scale,
    max_steps,
    kept_rows,
    DRAWN: tl.constexpr,
    C: tl.constexpr,
):
    """Refine every tile; programs take tiles in turn.

    Args:
        hidden: rows of ``C.width``, in the caller's order and type.
        state: ``s_0`` likewise, or None: drawn where ``DRAWN``, else zero.
        matrices, vectors: packed parameters.
        rows, tile_start, tile_count: the tile plan.
        trajectory: (S, max_steps, width) float32 out.
        final: rows like ``state`` float32 out, or None.
        kept: (max_steps, kept_rows, width) float32 out, ``s_0 .. s_{T-1}`` by packed row, or None.
        seed_low, seed_high: halves of the key of all draws.
        state_scale: of the drawn ``s_0``.
    """
    seed = layer.draws.join_seed(seed_low, seed_high)
    for tile in range(tl.program_id(0), tl.load(tile_count), tl.num_programs(0)):
        hidden_row = field(rows, tile, tiles.HIDDEN_ROW, C)
        stream = field(rows, tile, tiles.STREAM, C)
        position = field(rows, tile, tiles.POSITION, C)
        first = field(rows, tile, tiles.FIRST, C)
        depth = field(rows, tile, tiles.DEPTH, C)
        newest = field(rows, tile, tiles.NEWEST, C)
        state_row = field(rows, tile, tiles.STATE_ROW, C)
        if C.recurrent:
            packed = tl.load(tile_start + tile) + tl.arange(0, C.rows)
            current = first_state(state, state_row, stream, position, state_scale, seed, DRAWN, C)
            deepest = tl.max(depth, 0)
            for step in range(1, deepest + 1):
                running = depth >= step
                if kept is not None:
                    before = kept + (step - 1) * kept_rows.to(tl.int64) * C.width
                    store_rows(before, packed, running, current, C)
                there = load_rows(hidden, hidden_row, hidden_row >= 0, C)
                x = step_input(current, there, matrices, vectors, C)
                x = all_layers(x, matrices, vectors, first, stream, position, step, seed, C)
                current = tl.where(running[:, None], x, current)
                at = newest * max_steps + (step - 1)
                store_rows(trajectory, at, newest >= 0, current, C)
            # Past their own depth sequences repeat their last row.
            for step in range(deepest + 1, max_steps + 1):
                at = newest * max_steps + (step - 1)
                store_rows(trajectory, at, newest >= 0, current, C)
        else:
            current = load_rows(hidden, hidden_row, hidden_row >= 0, C)
            current = all_layers(current, matrices, vectors, first, stream, position, 0, seed, C)
            store_rows(trajectory, newest, newest >= 0, current, C)
        if final is not None:
            store_rows(final, state_row, state_row >= 0, current, C)
