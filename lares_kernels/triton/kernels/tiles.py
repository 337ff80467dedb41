"""Make the tile plan on the device: which rows of which sequences share a tile.

A *tile* is a few whole sequences, at most ``ROWS`` tokens. ``BLOCK`` neighbouring sequences are cut
into tiles on their own, first-fit: the deepest first, of those the longest, each into the first tile
that has room for it. So a tile's deepest sequence is its first, and every row runs at least as many
steps as the next. Tiles are numbered, and their rows packed, block after block. Row ``r`` of a tile
that starts at packed row ``n`` is packed row ``n + r``, so a tile's rows lie next to each other in
everything that backward keeps for itself.
"""

import triton
import triton.language as tl

from lares_kernels.gpu.tiles import MAX_PROGRAMS

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
KEPT_ROW: tl.constexpr = tl.constexpr(9)  # of the states kept for backward, whatever shares a tile
ROW_FIELDS: tl.constexpr = tl.constexpr(10)

# Sequences that are cut on their own. Programs take several blocks each where there are many.
BLOCK: tl.constexpr = tl.constexpr(128)
PROGRAMS: tl.constexpr = tl.constexpr(MAX_PROGRAMS)

# What a program adds up: arrays of ``PROGRAMS``.
TILES: tl.constexpr = tl.constexpr(0)
TOKENS: tl.constexpr = tl.constexpr(1)  # of its sequences in the order taken
TOKENS_AS_GIVEN: tl.constexpr = tl.constexpr(2)  # of as many in the caller's order
SUMS: tl.constexpr = tl.constexpr(3)

# What is known of each sequence, or of each tile there may be: int32 arrays of ``n_sequences``.
MEMBER: tl.constexpr = tl.constexpr(0)  # number, in the order taken, of the one that is placed here
PLACE: tl.constexpr = tl.constexpr(1)  # its tile among its program's << 8 | its first row there
BEFORE: tl.constexpr = tl.constexpr(2)  # tokens of its program's sequences before it, as taken
BEFORE_AS_GIVEN: tl.constexpr = tl.constexpr(3)  # and in the caller's order
FILL: tl.constexpr = tl.constexpr(4)  # a tile's rows
START: tl.constexpr = tl.constexpr(5)  # rows of its program's tiles before it
SEQUENCE_FIELDS: tl.constexpr = tl.constexpr(6)


@triton.jit
def load_length(lengths, sequence, mask, longest):
    """Load a sequence's length, clamped to 1..longest so that no bad value leads out of an
    array."""
    length = tl.load(lengths + sequence, mask=mask, other=0).to(tl.int32)
    return tl.where(mask, tl.minimum(tl.maximum(length, 1), longest), 0)


@triton.jit
def load_depth(num_steps, sequence, mask, max_steps):
    """Load a sequence's depth, clamped to 1..max_steps."""
    if num_steps is None:
        return sequence * 0 + max_steps
    else:
        depth = tl.load(num_steps + sequence, mask=mask, other=0)
        return tl.maximum(tl.minimum(depth, max_steps), 1).to(tl.int32)


@triton.jit
def fill_tiles(key, first, tiles, member, place, ROWS: tl.constexpr):
    """Put the block of sequences from ``first`` on into tiles from ``tiles`` on.

    Sequences of one key, which is their depth << 8 | length, are placed together: as many into each
    tile as it has room for. Return the rows of each possible tile, (BLOCK,).
    """
    tile = tl.arange(0, BLOCK)
    fill = tile * 0
    done = first
    best = tl.max(key, 0)
    while best > 0:
        length = best & 0xFF
        inverse = 65536 // length + 1  # x // length of x up to 128 is x inverse >> 16
        same = (key == best).to(tl.int32)
        count = tl.sum(same, 0)
        room = (ROWS - fill) * inverse >> 16
        earlier = tl.cumsum(room, 0) - room
        taken = tl.minimum(tl.maximum(count - earlier, 0), room)
        tl.store(member + done + tl.cumsum(same, 0) - 1, first + tile, mask=same > 0)
        for k in range(tl.max(taken, 0)):
            to = place + done + earlier + k
            tl.store(to, (tiles + tile) << 8 | (fill + k * length), mask=k < taken)
        fill += taken * length
        done += count
        key = tl.where(same > 0, 0, key)
        best = tl.max(key, 0)
    return fill


@triton.jit
def cut(
    program,
    lengths,
    order,
    num_steps,
    sequences,
    sums,
    n_sequences,
    rollouts,
    longest,
    max_steps,
    n_blocks,
    AS_GIVEN: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Cut one program's sequences into tiles, ``n_blocks`` blocks of them.

    Args:
        lengths: (n_groups,) int64, lengths of the caller's sequences, each of which has ``rollouts``.
        order: (n_sequences,) int64 order in which sequences are taken, or None: the given one.
        num_steps: (n_sequences,) int64, or None where all run ``max_steps``.
        sequences: (SEQUENCE_FIELDS, n_sequences) int32 out.
        sums: (SUMS, PROGRAMS) int32 out.
        AS_GIVEN: also count the tokens before each in the caller's order, which is not ``order``.
    """
    member = sequences + MEMBER * n_sequences
    place = sequences + PLACE * n_sequences
    in_block = tl.arange(0, BLOCK)
    first_of_program = program * n_blocks * BLOCK
    tiles = 0
    tokens = 0
    as_given = 0
    for block in range(n_blocks):
        first = first_of_program + block * BLOCK
        at = first + in_block
        mask = at < n_sequences
        sequence = at
        if order is not None:
            sequence = tl.load(order + at, mask=mask, other=0).to(tl.int32)
        length = load_length(lengths, sequence // rollouts, mask, longest)
        depth = load_depth(num_steps, sequence, mask, 1 if num_steps is None else max_steps)
        before = tokens + tl.cumsum(length, 0) - length
        tl.store(sequences + BEFORE * n_sequences + at, before, mask=mask)
        if AS_GIVEN:
            given = load_length(lengths, at // rollouts, mask, longest)
            before = as_given + tl.cumsum(given, 0) - given
            tl.store(sequences + BEFORE_AS_GIVEN * n_sequences + at, before, mask=mask)
            as_given += tl.sum(given, 0)

        key = tl.where(mask, depth << 8 | length, 0)
        fill = fill_tiles(key, first, tiles, member, place, ROWS)
        used = fill > 0
        to = sequences + first_of_program + tiles + in_block
        tl.store(to + FILL * n_sequences, fill, mask=used)
        tl.store(to + START * n_sequences, tokens + tl.cumsum(fill, 0) - fill, mask=used)
        tiles += tl.sum(used.to(tl.int32), 0)
        tokens += tl.sum(length, 0)
    of_program = sums + program
    tl.store(of_program + TILES * PROGRAMS, tiles)
    tl.store(of_program + TOKENS * PROGRAMS, tokens)
    tl.store(of_program + TOKENS_AS_GIVEN * PROGRAMS, as_given)


@triton.jit
def sum_before(sums, program, count):
    """Sum the numbers of the first ``program`` of ``count`` programs."""
    programs = tl.arange(0, PROGRAMS)
    return tl.sum(tl.load(sums + programs, mask=programs < tl.minimum(program, count), other=0), 0)


@triton.jit(
    do_not_specialize=[
        *("n_sequences", "rollouts", "longest", "max_steps", "n_blocks", "n_programs"),
        *("max_tiles", "padded_length", "n_hidden_rows", "row_limit"),
    ]
)
def rows_kernel(
    lengths,
    order,
    num_steps,
    sequence_ids,
    tokens,
    sequences,
    sums,
    totals,
    tile_start,
    rows,
    row_depth,
    n_sequences,
    rollouts,
    longest,
    max_steps,
    n_blocks,
    n_programs,
    max_tiles,
    padded_length,
    n_hidden_rows,
    row_limit,
    AS_GIVEN: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    LEFT: tl.constexpr,
    ZEROS: tl.constexpr,
):
    """Write down what is known of each row of a tile; one program for ``GROUP`` neighbouring places.

    Args:
        lengths, order, num_steps, sequences, sums, AS_GIVEN: of :func:`cut`, which ran as
            ``n_programs`` of ``n_blocks`` blocks.
        sequence_ids: (n_groups,) int64 that address draws, or None for ``0, 1, ...``.
        tokens: (n_groups,) int64, how many of each sequence's rows are not padding; None: all.
        totals: (2,) int32 out, numbers of tiles and of packed rows.
        tile_start: (max_tiles,) int32 out, packed row of each tile's first row.
        rows: (max_tiles, ROW_FIELDS, ROWS) int32 out.
        row_depth: (row_limit,) int32 out, steps of each packed row.
        LEFT: padded arrays have their padding before the tokens.
        ZEROS: a sequence's rows have it too, as zeros; rows past the last one count as these.
    """
    of_program = n_blocks * BLOCK
    at = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    program = tl.program_id(0) * GROUP // of_program  # programs divide into groups
    first_tile = sum_before(sums + TILES * PROGRAMS, program, n_programs)
    first_row = sum_before(sums + TOKENS * PROGRAMS, program, n_programs)
    if tl.program_id(0) == 0:
        tiles = sum_before(sums + TILES * PROGRAMS, n_programs, n_programs)
        all_rows = sum_before(sums + TOKENS * PROGRAMS, n_programs, n_programs)
        # Bad lengths of packed sequences may add up to more than there is room for.
        tl.store(totals, tl.minimum(tiles, max_tiles))
        tl.store(totals + 1, tl.minimum(all_rows, row_limit))

    mask = at < n_sequences
    member = tl.load(sequences + MEMBER * n_sequences + at, mask=mask, other=0)
    place = tl.load(sequences + PLACE * n_sequences + at, mask=mask, other=0)
    before = tl.load(sequences + BEFORE * n_sequences + member, mask=mask, other=0)
    of_tile = sequences + program * of_program + (place >> 8)
    fill = tl.load(of_tile + FILL * n_sequences, mask=mask, other=0)
    start = first_row + tl.load(of_tile + START * n_sequences, mask=mask, other=0)
    sequence = member
    if order is not None:
        sequence = tl.load(order + member, mask=mask, other=0).to(tl.int32)
    group = sequence // rollouts
    rollout = sequence - group * rollouts
    length = load_length(lengths, group, mask, longest)
    kept_start = first_row + before
    state_start = kept_start
    if AS_GIVEN:
        state_start = tl.load(
            sequences + BEFORE_AS_GIVEN * n_sequences + sequence, mask=mask, other=0
        )
        for earlier in range(n_programs):
            there = tl.load(sums + TOKENS_AS_GIVEN * PROGRAMS + earlier)
            state_start += tl.where(earlier < sequence // of_program, there, 0)
    if padded_length > 0:
        state_start = sequence * padded_length
        hidden_start = group * padded_length
        if LEFT:
            state_start += padded_length - length
            hidden_start += padded_length - length
    else:
        hidden_start = (state_start - rollout * length) // rollouts
    number = group
    if sequence_ids is not None:
        # Unchecked ids may be any number; the higher bits address a rollout.
        number = (tl.load(sequence_ids + group, mask=mask, other=0) & 0xFFFFFF).to(tl.int32)
    depth = load_depth(num_steps, sequence, mask, max_steps)
    count = length
    if tokens is not None:
        count = tl.load(tokens + group, mask=mask, other=0)
        count = tl.maximum(tl.minimum(count, length), 1).to(tl.int32)

    tile = first_tile + (place >> 8)
    mask = mask & (tile < max_tiles)
    row = place & 0xFF
    tl.store(tile_start + tile, start, mask=mask & (row == 0))

    # A tile's last sequence sees to the rows after it, too.
    position = tl.arange(0, ROWS)[None, :] + row[:, None] * 0
    r = row[:, None] + position
    is_last = row + length == fill
    inside = mask[:, None] & (r < ROWS) & ((position < length[:, None]) | is_last[:, None])
    packed = start[:, None] + r
    real = inside & (position < length[:, None]) & (packed < row_limit)
    last = length - 1
    if ZEROS:
        shown = real & (position >= (length - count)[:, None])
    else:
        shown = ~real | (position < count[:, None])
        last = count - 1
    hidden_row = tl.minimum(hidden_start[:, None] + position, n_hidden_rows - 1)
    state_row = tl.minimum(state_start[:, None] + position, row_limit - 1)
    kept_row = tl.minimum(kept_start[:, None] + position, row_limit - 1)
    stream = (number | (rollout << 24))[:, None] + position * 0
    newest = sequence[:, None] + position * 0
    is_newest = real & (position == last[:, None])
    depths = depth[:, None] + position * 0

    to = rows + tile[:, None] * (ROW_FIELDS * ROWS) + r
    tl.store(to + HIDDEN_ROW * ROWS, tl.where(real, hidden_row, -1), mask=inside)
    tl.store(to + STATE_ROW * ROWS, tl.where(real, state_row, -1), mask=inside)
    tl.store(to + STREAM * ROWS, tl.where(real, stream, 0), mask=inside)
    tl.store(to + POSITION * ROWS, tl.where(real, position, 0), mask=inside)
    tl.store(to + FIRST * ROWS, tl.where(real, r - position, r), mask=inside)
    tl.store(to + DEPTH * ROWS, tl.where(real, depths, 0), mask=inside)
    tl.store(to + NEWEST * ROWS, tl.where(is_newest, newest, -1), mask=inside)
    tl.store(to + SHOWN * ROWS, tl.where(shown, 1, 0), mask=inside)
    tl.store(to + SPOILT * ROWS, r * 0, mask=inside)
    tl.store(to + KEPT_ROW * ROWS, tl.where(real, kept_row, -1), mask=inside)
    tl.store(row_depth + packed, depths, mask=real)
