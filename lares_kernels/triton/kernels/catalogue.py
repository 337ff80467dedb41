"""Score a whole catalogue, a tile of queries and items at a time, and reduce the scores.

Queries are passed normalised (for cosine) and divided by the temperature; items unchanged, with the
inverse of their lengths for cosine. Excluded ids ascend in every row. Programs divide a catalogue into
``splits``; their results are combined on the host, in order. ``C`` is a :class:`Tile` of
``triton/catalogue.py``.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lares_kernels.triton.kernels.rounding import operand

NONE: tl.constexpr = tl.constexpr(float("-inf"))
NO_KEY: tl.constexpr = tl.constexpr(-(1 << 63))
MAX_ID: tl.constexpr = tl.constexpr((1 << 31) - 1)


@triton.jit
def load_rows(table, rows, n_rows, C: tl.constexpr):
    """Load (rows, d) of a (n_rows, width) table, with zeros past either end."""
    column = tl.arange(0, C.d)[None, :]
    at = rows.to(tl.int64)[:, None] * C.width + column
    return tl.load(table + at, mask=(rows < n_rows)[:, None] & (column < C.width), other=0.0)


@triton.jit
def bounds(split, splits, n_items, columns: tl.constexpr):
    """Return (first item, end) of a split of the catalogue in blocks of ``columns``, int64."""
    blocks = tl.cdiv(n_items, columns)
    begin = blocks.to(tl.int64) * split // splits
    end = blocks.to(tl.int64) * (split + 1) // splits
    return begin, end


@triton.jit
def outside(ids, n_items):
    """Mark ids that are no item's: where values are unchecked they may be any number."""
    return (ids < 0) | (ids >= n_items)


@triton.jit
def tile_scores(query, item, lengths, items, n_items, C: tl.constexpr):
    """Compute scores (queries, items) of the ids ``items``."""
    item = operand(tl.trans(item), query.dtype, C.tf32)
    scores = tl.dot(query, item, input_precision=C.precision)
    if C.cosine:
        scores *= tl.load(lengths + items, mask=items < n_items, other=0.0)[None, :]
    return scores


@triton.jit
def leave_out(numbers, value, items, n_items, rows, n_rows, excluded, n_excluded, C: tl.constexpr):
    """Return ``numbers`` with ``value`` where there is no item, or one that the row excludes."""
    numbers = tl.where((items < n_items)[None, :], numbers, value)
    if C.excluded:
        first = tl.min(items, 0)
        end = tl.max(items, 0) + 1
        known = rows < n_rows
        at = excluded + rows.to(tl.int64) * n_excluded
        # The first place in each row that may hold one of these items.
        place = tl.zeros_like(rows)
        after = tl.zeros_like(rows) + n_excluded
        steps = n_excluded
        while steps > 0:
            middle = (place + after) // 2
            inside = place < after
            below = tl.load(at + middle, mask=known & inside, other=n_items) < first
            place = tl.where(inside & below, middle + 1, place)
            after = tl.where(inside & (below == 0), middle, after)
            steps = steps // 2
        found = tl.load(at + place, mask=known & (place < n_excluded), other=n_items)
        while tl.min(found, 0) < tl.minimum(end, n_items):
            numbers = tl.where(found[:, None] == items[None, :], value, numbers)
            place += (found < end).to(tl.int32)
            found = tl.load(at + place, mask=known & (place < n_excluded), other=n_items)
    return numbers


@triton.jit(do_not_specialize=["n_queries", "each", "n_items", "n_excluded", "splits"])
def log_probability_kernel(
    queries,
    items,
    lengths,
    chosen,
    excluded,
    chosen_score,
    shifts,
    sums,
    weighted,
    n_queries,
    each,
    n_items,
    n_excluded,
    splits,
    ENTROPY: tl.constexpr,
    C: tl.constexpr,
):
    """Sum exp(s - shift) over one split of the catalogue.

    The grid is (blocks of queries, splits).

    Args:
        chosen_score: (N,) out; NaN for an id out of range.
        shifts, sums: (splits, N) out: the greatest score, and the sum above it.
        weighted: (splits, N) out for ``ENTROPY``: the sum of exp(s - shift) s.
        each: queries per row, which share its chosen and its excluded items.
    """
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    split = tl.program_id(1)
    real = row < n_queries
    query = load_rows(queries, row, n_queries, C)
    wanted = tl.load(chosen + row // each, mask=real, other=-1)
    score = tl.zeros((C.rows,), tl.float32)
    most = tl.full((C.rows,), NONE, tl.float32)
    total = tl.zeros((C.rows,), tl.float32)
    moment = tl.zeros((C.rows,), tl.float32)
    begin, end = bounds(split, splits, n_items, C.columns)
    for block in range(begin.to(tl.int32), end.to(tl.int32)):
        item = block * C.columns + tl.arange(0, C.columns)
        rows = load_rows(items, item, n_items, C)
        s = tile_scores(query, rows, lengths, item, n_items, C)
        score += tl.sum(tl.where(item[None, :] == wanted[:, None], s, 0.0), 1)
        s = leave_out(
            s, NONE, item, n_items, row // each, n_queries // each, excluded, n_excluded, C
        )
        higher = tl.maximum(most, tl.max(s, 1))
        # A row may have nothing but excluded items so far.
        shift = tl.where(higher > NONE, higher, 0.0)
        share = tl.exp(s - shift[:, None])
        keep = tl.exp(most - shift)
        total = total * keep + tl.sum(share, 1)
        if ENTROPY:
            moment = moment * keep + tl.sum(tl.where(share > 0.0, share * s, 0.0), 1)
        # NaN would be lost in a maximum.
        most = tl.where(total == total, higher, total)
    at = split.to(tl.int64) * n_queries + row
    tl.store(shifts + at, most, mask=real)
    tl.store(sums + at, total, mask=real)
    if ENTROPY:
        tl.store(weighted + at, moment, mask=real)
    # One split writes each row; the first those of an id that no split has.
    nowhere = outside(wanted, n_items)
    at = tl.where(nowhere, 0, wanted)
    here = (at >= begin * C.columns) & (at < end * C.columns)
    tl.store(chosen_score + row, tl.where(nowhere, float("nan"), score), mask=real & here)


class Asked(NamedTuple):
    """Hold what every tile of gradients needs: arguments of :func:`query_gradients_kernel`."""

    lengths: Any
    chosen: Any
    excluded: Any
    normaliser: Any
    g_log_probability: Any
    n_queries: Any
    each: Any
    n_items: Any
    n_excluded: Any


@triton.jit
def score_gradients(query, rows, row, item, asked, C: tl.constexpr):
    """Return the loss's gradient by a tile of scores."""
    real = row < asked.n_queries
    s = tile_scores(query, rows, asked.lengths, item, asked.n_items, C)
    log_sum = tl.load(asked.normaliser + row, mask=real, other=0.0)
    g = tl.load(asked.g_log_probability + row, mask=real, other=0.0)
    wanted = tl.load(asked.chosen + row // asked.each, mask=real, other=-1)
    g = tl.where(outside(wanted, asked.n_items), float("nan"), g)
    is_chosen = (item[None, :] == wanted[:, None]).to(tl.float32)
    g_scores = g[:, None] * (is_chosen - tl.exp(s - log_sum[:, None]))
    g_scores = tl.where(real[:, None], g_scores, 0.0)
    queries, n_rows = row // asked.each, asked.n_queries // asked.each
    return leave_out(
        *(g_scores, 0.0, item, asked.n_items, queries, n_rows),
        *(asked.excluded, asked.n_excluded, C),
    )


@triton.jit(do_not_specialize=["n_queries", "each", "n_items", "n_excluded", "splits"])
def query_gradients_kernel(
    queries,
    items,
    lengths,
    chosen,
    excluded,
    normaliser,
    g_log_probability,
    g_queries,
    n_queries,
    each,
    n_items,
    n_excluded,
    splits,
    C: tl.constexpr,
):
    """Write ``g_queries`` (splits, N, width) float32; the grid is forward's."""
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    split = tl.program_id(1)
    query = load_rows(queries, row, n_queries, C)
    asked = Asked(
        *(lengths, chosen, excluded, normaliser, g_log_probability),
        *(n_queries, each, n_items, n_excluded),
    )
    total = tl.zeros((C.rows, C.d), tl.float32)
    begin, end = bounds(split, splits, n_items, C.columns)
    for block in range(begin.to(tl.int32), end.to(tl.int32)):
        item = block * C.columns + tl.arange(0, C.columns)
        rows = load_rows(items, item, n_items, C)
        g_scores = score_gradients(query, rows, row, item, asked, C)
        if C.cosine:
            g_scores *= tl.load(lengths + item, mask=item < n_items, other=0.0)[None, :]
        g_scores = operand(g_scores, query.dtype, C.tf32)
        taken = operand(rows, query.dtype, C.tf32)
        total += tl.dot(g_scores, taken, input_precision=C.precision)
    column = tl.arange(0, C.d)[None, :]
    at = (split.to(tl.int64) * n_queries + row)[:, None] * C.width + column
    tl.store(g_queries + at, total, mask=(row < n_queries)[:, None] & (column < C.width))


@triton.jit(do_not_specialize=["n_queries", "each", "n_items", "n_excluded", "longest"])
def item_gradients_kernel(
    queries,
    items,
    lengths,
    chosen,
    excluded,
    normaliser,
    g_log_probability,
    g_items,
    n_queries,
    each,
    n_items,
    n_excluded,
    longest,
    C: tl.constexpr,
):
    """Write ``g_items`` (V, width) float32; a program has one block of items and takes all queries.

    Args:
        longest: inverse of the shortest length that is normalised.
    """
    item = tl.program_id(0) * C.columns + tl.arange(0, C.columns)
    rows = load_rows(items, item, n_items, C)
    asked = Asked(
        *(lengths, chosen, excluded, normaliser, g_log_probability),
        *(n_queries, each, n_items, n_excluded),
    )
    total = tl.zeros((C.columns, C.d), tl.float32)
    for block in range(0, tl.cdiv(n_queries, C.rows)):
        row = block * C.rows + tl.arange(0, C.rows)
        query = load_rows(queries, row, n_queries, C)
        g_scores = score_gradients(query, rows, row, item, asked, C)
        g_scores = operand(g_scores, query.dtype, C.tf32)
        total += tl.dot(tl.trans(g_scores), query, input_precision=C.precision)
    if C.cosine:
        inverse = tl.load(lengths + item, mask=item < n_items, other=0.0)
        unit = rows.to(tl.float32) * inverse[:, None]
        along = tl.where(inverse < longest, tl.sum(total * unit, 1), 0.0)
        # Of an item that is not finite and that everyone excludes zero, too.
        asked = tl.max((total != 0.0).to(tl.int32), 1) != 0
        total = tl.where(asked[:, None], (total - along[:, None] * unit) * inverse[:, None], 0.0)
    column = tl.arange(0, C.d)[None, :]
    at = item.to(tl.int64)[:, None] * C.width + column
    tl.store(g_items + at, total, mask=(item < n_items)[:, None] & (column < C.width))


@triton.jit(do_not_specialize=["n_queries", "each", "n_items", "n_excluded", "splits"])
def ranks_kernel(
    queries,
    items,
    lengths,
    targets,
    excluded,
    counts,
    n_queries,
    each,
    n_items,
    n_excluded,
    splits,
    C: tl.constexpr,
):
    """Write ``counts`` (splits, N) int32: items that score at least as high as the target.

    The target itself counts; a row with a NaN score that it does not exclude, or whose target is out of
    range, gets the greatest int32. The target's score is computed in a tile of the same shape, so that
    it has the same bits. The grid is (blocks of queries, splits).
    """
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    split = tl.program_id(1)
    real = row < n_queries
    query = load_rows(queries, row, n_queries, C)
    target = tl.load(targets + row // each, mask=real, other=0)
    nowhere = outside(target, n_items)
    target = tl.where(nowhere, 0, target).to(tl.int32)
    rows = load_rows(items, target, n_items, C)
    own = tile_scores(query, rows, lengths, target, n_items, C)
    place = tl.arange(0, C.rows)
    wanted = tl.sum(tl.where(place[:, None] == place[None, :], own, 0.0), 1)
    count = tl.zeros((C.rows,), tl.int32)
    broken = nowhere.to(tl.int32)
    begin, end = bounds(split, splits, n_items, C.rows)
    for block in range(begin.to(tl.int32), end.to(tl.int32)):
        item = block * C.rows + tl.arange(0, C.rows)
        rows = load_rows(items, item, n_items, C)
        s = tile_scores(query, rows, lengths, item, n_items, C)
        # One for an item that is ahead, two for one whose score is NaN.
        found = tl.where(s >= wanted[:, None], 1, 0) + tl.where(s != s, 2, 0)
        found = leave_out(
            found, 0, item, n_items, row // each, n_queries // each, excluded, n_excluded, C
        )
        count += tl.sum(found & 1, 1)
        broken += tl.sum(found >> 1, 1)
    count = tl.where(broken > 0, MAX_ID, count)
    tl.store(counts + split.to(tl.int64) * n_queries + row, count, mask=real)


@triton.jit(do_not_specialize=["n_queries", "n_items", "n_excluded", "splits"])
def top_k_kernel(
    queries, items, lengths, excluded, best, n_queries, n_items, n_excluded, splits, C: tl.constexpr
):
    """Write ``best`` (splits, N, columns) int64: keys of a split's best items, best first.

    A key orders like (score, lower id): the score's bits, mapped to order like integers, above the
    greatest id less the item's. The grid is (blocks of queries, splits).
    """
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    split = tl.program_id(1)
    query = load_rows(queries, row, n_queries, C)
    found = tl.full((C.rows, C.columns), NO_KEY, tl.int64)
    begin, end = bounds(split, splits, n_items, C.columns)
    for block in range(begin.to(tl.int32), end.to(tl.int32)):
        item = block * C.columns + tl.arange(0, C.columns)
        rows = load_rows(items, item, n_items, C)
        s = tile_scores(query, rows, lengths, item, n_items, C)
        s = leave_out(s, NONE, item, n_items, row, n_queries, excluded, n_excluded, C)
        s = tl.where(s == 0.0, 0.0, s)  # there are two zeros
        bits = s.to(tl.int32, bitcast=True)
        ordered = (bits ^ ((bits >> 31) & MAX_ID)).to(tl.int64)
        key = (ordered << 32) | (~item & MAX_ID).to(tl.int64)[None, :]
        key = tl.where(s > NONE, key, NO_KEY)
        worst = tl.min(found, 1)
        if tl.max((tl.max(key, 1) > worst).to(tl.int32), 0) > 0:
            # Of two descending lists, one turned round, the greater of each pair are the best.
            key = tl.sort(key, descending=False)
            found = tl.bitonic_merge(tl.maximum(found, key), descending=True)
    at = (split.to(tl.int64) * n_queries + row)[:, None] * C.columns + tl.arange(0, C.columns)[
        None, :
    ]
    tl.store(best + at, found, mask=(row < n_queries)[:, None])
