"""The tile plan on the device: which rows of which sequences share a tile.

A *tile* is a few whole sequences, at most ``ROWS`` tokens. Sequences are taken in order, deepest
first, and a tile is closed by the first one that does not fit it (next-fit). Row ``r`` of a tile that
starts at packed row ``n`` is packed row ``n + r``, so a tile's rows lie next to each other in
everything that kernels keep for themselves.
"""

import triton
import triton.language as tl

# What is known of a row: int32 arrays of ``ROWS`` for each tile.
HIDDEN_ROW: tl.constexpr = tl.constexpr(0)  # of the caller's hidden; -1 past a tile's last row
STATE_ROW: tl.constexpr = tl.constexpr(1)  # of the caller's states
STREAM: tl.constexpr = tl.constexpr(2)  # its sequence's first counter word
POSITION: tl.constexpr = tl.constexpr(3)  # in its sequence
FIRST: tl.constexpr = tl.constexpr(4)  # tile row of its sequence's first token
DEPTH: tl.constexpr = tl.constexpr(5)  # steps that its sequence runs; 0 past a tile's last row
NEWEST: tl.constexpr = tl.constexpr(6)  # its sequence's number if it is the newest token, else -1
SHOWN: tl.constexpr = tl.constexpr(7)  # 0 if it is padding among a sequence's rows, else 1
SPOILT: tl.constexpr = tl.constexpr(8)  # see `apart.py`
ROW_FIELDS: tl.constexpr = tl.constexpr(9)


@triton.jit
def load_length(lengths, sequence, mask, longest):
    """Length of a sequence, held to 1..longest so that no bad value leads out of an array."""
    length = tl.load(lengths + sequence, mask=mask, other=0).to(tl.int32)
    return tl.where(mask, tl.minimum(tl.maximum(length, 1), longest), 0)


@triton.jit
def prefix_sums(lengths, order, out, count, rollouts, longest, BLOCK: tl.constexpr):
    """``out[i]`` (count + 1) = tokens of the sequences before the ``i``-th."""
    total = 0
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < count
        sequence = at
        if order is not None:
            sequence = tl.load(order + at, mask=mask, other=0).to(tl.int32)
        length = load_length(lengths, sequence // rollouts, mask, longest)
        tl.store(out + at, total + tl.cumsum(length, 0) - length, mask=mask)
        total += tl.sum(length, 0)
    tl.store(out + count, total)


@triton.jit(do_not_specialize=["n_sequences", "n_groups", "rollouts", "longest", "max_tiles"])
def plan_kernel(
    lengths,
    order,
    starts,
    hidden_starts,
    jumps,
    tile_sequence,
    tile_count,
    n_sequences,
    n_groups,
    rollouts,
    longest,
    max_tiles,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut the sequences into tiles; one program.

    Args:
        lengths: (n_groups,) int64, of the caller's sequences, each of which has ``rollouts``.
        order: (n_sequences,) int64 order in which sequences are taken, or None: as they come.
        starts: (n_sequences + 1,) int32 out, packed row of each sequence in that order.
        hidden_starts: (n_groups + 1,) int32 out, packed row of ``hidden``; None if it is padded.
        jumps: (2, n_sequences + 1) int32 scratch.
        tile_sequence: (max_tiles + 1,) int32 out, first sequence of each tile.
        tile_count: (1,) int32 out.
    """
    prefix_sums(lengths, order, starts, n_sequences, rollouts, longest, BLOCK)
    if hidden_starts is not None:
        prefix_sums(lengths, None, hidden_starts, n_groups, 1, longest, BLOCK)
    tl.debug_barrier()

    # The sequence that starts the next tile, if a tile starts here.
    for start in range(0, n_sequences + 1, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at <= n_sequences
        end = tl.load(starts + at, mask=mask, other=0) + ROWS
        low = at  # starts[low] <= end; every sequence has a token, so at most ROWS of them fit
        step = ROWS
        while step > 0:
            probe = low + step
            inside = mask & (probe <= n_sequences)
            fits = inside & (tl.load(starts + probe, mask=inside, other=0) <= end)
            low = tl.where(fits, probe, low)
            step //= 2
        tl.store(jumps + at, low, mask=mask)

    # Tile t starts after t jumps from sequence 0: as many of the 1st, 2nd, 4th, ... powers of the
    # jump as t has bits.
    for start in range(0, max_tiles + 1, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        tl.store(tile_sequence + tile, tile * 0, mask=tile <= max_tiles)
    power = 1
    source = 0
    while power <= max_tiles:
        tl.debug_barrier()
        here = jumps + source * (n_sequences + 1)
        there = jumps + (1 - source) * (n_sequences + 1)
        for start in range(0, max_tiles + 1, BLOCK):
            tile = start + tl.arange(0, BLOCK)
            mask = (tile <= max_tiles) & ((tile & power) != 0)
            sequence = tl.load(tile_sequence + tile, mask=mask, other=0)
            tl.store(tile_sequence + tile, tl.load(here + sequence, mask=mask, other=0), mask=mask)
        for start in range(0, n_sequences + 1, BLOCK):
            at = start + tl.arange(0, BLOCK)
            mask = at <= n_sequences
            once = tl.load(here + at, mask=mask, other=0)
            tl.store(there + at, tl.load(here + once, mask=mask, other=0), mask=mask)
        source = 1 - source
        power *= 2
    tl.debug_barrier()

    count = 0
    for start in range(0, max_tiles, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        sequence = tl.load(tile_sequence + tile, mask=tile < max_tiles, other=n_sequences)
        count += tl.sum((sequence < n_sequences).to(tl.int32), 0)
    tl.store(tile_count, count)


@triton.jit(
    do_not_specialize=["rollouts", "padded_length", "n_hidden_rows", "row_limit", "max_steps"]
)
def rows_kernel(
    starts,
    hidden_starts,
    order,
    sequence_ids,
    num_steps,
    tokens,
    tile_sequence,
    tile_count,
    tile_start,
    rows,
    row_depth,
    rollouts,
    padded_length,
    n_hidden_rows,
    row_limit,
    max_steps,
    ROWS: tl.constexpr,
    LEFT: tl.constexpr,
    ZEROS: tl.constexpr,
):
    """Write down what is known of each row of a tile; one program for each tile there may be.

    Args:
        starts, hidden_starts, order, tile_sequence, tile_count: of :func:`plan_kernel`.
        sequence_ids: (n_groups,) int64 that address draws, or None for ``0, 1, ...``.
        num_steps: (n_sequences,) int64, or None where all run ``max_steps``.
        tokens: (n_groups,) int64, how many of each sequence's rows are not padding; None: all.
        tile_start: (max_tiles,) int32 out, packed row of each tile's first row.
        rows: (max_tiles, ROW_FIELDS, ROWS) int32 out.
        row_depth: (row_limit,) int32 out, steps of each packed row.
        LEFT: padded arrays have their padding before the tokens.
        ZEROS: so have a sequence's rows, which are zero there; rows past the last one count as these.
    """
    tile = tl.program_id(0)
    if tile < tl.load(tile_count):
        first_sequence = tl.load(tile_sequence + tile)
        base = tl.load(starts + first_sequence)
        end = tl.load(starts + tl.load(tile_sequence + tile + 1))
        r = tl.arange(0, ROWS)
        row = base + r
        real = (row < end) & (row < row_limit)
        low = first_sequence + r * 0  # starts[low] <= row
        step = ROWS // 2
        while step > 0:
            # A tile of n rows has at most n sequences, so probes of real rows stay in the array.
            probe = tl.minimum(low + step, tl.load(tile_sequence + tile + 1))
            below = real & (tl.load(starts + probe, mask=real, other=0) <= row)
            low = tl.where(below, probe, low)
            step //= 2
        sequence = low
        if order is not None:
            sequence = tl.load(order + low, mask=real, other=0).to(tl.int32)
        start = tl.load(starts + low, mask=real, other=0)
        length = tl.load(starts + low + 1, mask=real, other=0) - start
        position = row - start
        group = sequence // rollouts
        rollout = sequence - group * rollouts
        if hidden_starts is None:
            before = padded_length - length if LEFT else 0
            hidden_row = group * padded_length + before + position
            state_row = sequence * padded_length + before + position
        else:
            hidden_start = tl.load(hidden_starts + group, mask=real, other=0)
            hidden_row = hidden_start + position
            state_row = rollouts * hidden_start + rollout * length + position
        hidden_row = tl.minimum(hidden_row, n_hidden_rows - 1)
        state_row = tl.minimum(state_row, row_limit - 1)
        number = group
        if sequence_ids is not None:
            # Where nobody looked at values an id may be any number; what is above addresses a rollout.
            number = (tl.load(sequence_ids + group, mask=real, other=0) & 0xFFFFFF).to(tl.int32)
        depth = max_steps + r * 0
        if num_steps is not None:
            depth = tl.load(num_steps + sequence, mask=real, other=0)
            depth = tl.maximum(tl.minimum(depth, max_steps), 1).to(tl.int32)

        shown = position >= 0
        last = length - 1
        if tokens is not None:
            count = tl.load(tokens + group, mask=real, other=0)
            count = tl.maximum(tl.minimum(count, length), 1).to(tl.int32)
            if ZEROS:
                shown = real & (position >= length - count)
            else:
                shown = ~real | (position < count)
                last = count - 1

        at = rows + tile * (ROW_FIELDS * ROWS) + r
        tl.store(at + SPOILT * ROWS, r * 0)
        tl.store(at + SHOWN * ROWS, tl.where(shown, 1, 0))
        tl.store(at + HIDDEN_ROW * ROWS, tl.where(real, hidden_row, -1))
        tl.store(at + STATE_ROW * ROWS, tl.where(real, state_row, -1))
        tl.store(at + STREAM * ROWS, tl.where(real, number | (rollout << 24), 0))
        tl.store(at + POSITION * ROWS, tl.where(real, position, 0))
        tl.store(at + FIRST * ROWS, tl.where(real, r - position, r))
        tl.store(at + DEPTH * ROWS, tl.where(real, depth, 0))
        tl.store(at + NEWEST * ROWS, tl.where(real & (position == last), sequence, -1))
        tl.store(row_depth + row, depth, mask=real)
        tl.store(tile_start + tile, base)
