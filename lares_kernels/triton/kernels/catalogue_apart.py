"""Compute gradients by queries where an item is not finite, without it for rows that exclude it.

Zero times NaN is NaN, so in a product of gradients by scores and items such an item spoils all rows
of a tile. Those tiles are recomputed: the item counts as zero in the product, and its contribution
is added separately to rows that do not exclude it; all else has the same bits. The width is
processed in slices, since whole rows and their results do not fit the registers.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels.catalogue import Asked, bounds, load_rows, score_gradients
from lares_kernels.triton.kernels.rounding import operand

# The least of those that round to infinity in tf32.
MOST_TF32: tl.constexpr = tl.constexpr((2.0 - 2.0**-11) * 2.0**127)


@triton.jit
def load_slice(table, rows, n_rows, column, C: tl.constexpr):
    """Load (rows, columns) of a (n_rows, width) table, with zeros past its ends."""
    at = rows.to(tl.int64)[:, None] * C.width + column[None, :]
    return tl.load(
        table + at, mask=(rows < n_rows)[:, None] & (column < C.width)[None, :], other=0.0
    )


@triton.jit
def load_numbers(items, one, column, DTYPE: tl.constexpr, C: tl.constexpr):
    """Load some numbers of item ``one`` as products read them, in float32."""
    at = items + tl.cast(one, tl.int64) * C.width + column
    loaded = tl.load(at, mask=column < C.width, other=0.0)
    return operand(loaded, DTYPE, C.tf32).to(tl.float32)


@triton.jit
def traces(items, item, n_items, DTYPE: tl.constexpr, C: tl.constexpr):
    """Return (columns,) zeros, with NaN for items of which products read a number that is not
    finite."""
    found = tl.zeros_like(item).to(tl.float32)
    for start in range(0, C.d, C.slice):
        numbers = load_slice(items, item, n_items, start + tl.arange(0, C.slice), C)
        if C.tf32:
            # Rounded numbers would be held in registers.
            finite = tl.abs(numbers.to(tl.float32)) < MOST_TF32
            found += tl.sum(tl.where(finite, 0.0, float("nan")), 1)
        else:
            found += tl.sum(numbers.to(DTYPE).to(tl.float32) * 0.0, 1)
    return found


@triton.jit
def add_item(
    queries, items, one, row, column, asked, g_queries, DTYPE: tl.constexpr, C: tl.constexpr
):
    """Add to (row, column) of ``g_queries`` what item ``one``, which is not finite, adds to them."""
    real = row < asked.n_queries
    s = tl.zeros_like(row).to(tl.float32)
    for start in range(0, C.d, C.slice):
        part = start + tl.arange(0, C.slice)
        query = load_slice(queries, row, asked.n_queries, part, C).to(tl.float32)
        s += tl.sum(query * load_numbers(items, one, part, DTYPE, C)[None, :], 1)
    if C.cosine:
        s += float("nan")
    g = tl.load(asked.g_log_probability + row, mask=real, other=0.0)
    log_sum = tl.load(asked.normaliser + row, mask=real, other=0.0)
    wanted = tl.load(asked.chosen + row // asked.each, mask=real, other=-1)
    share = g * ((wanted == one).to(tl.float32) - tl.exp(s - log_sum))
    sees = real
    listed = asked.excluded + (row // asked.each).to(tl.int64) * asked.n_excluded
    for place in range(0, asked.n_excluded):
        sees = sees & (tl.load(listed + place, mask=real, other=-1) != one)
    added = share[:, None] * load_numbers(items, one, column, DTYPE, C)[None, :]
    at = g_queries + row.to(tl.int64)[:, None] * C.width + column[None, :]
    inside = sees[:, None] & (column < C.width)[None, :]
    # Another thread may have written these before.
    tl.debug_barrier()
    tl.store(at, tl.load(at, mask=inside, other=0.0) + added, mask=inside)


@triton.jit(do_not_specialize=["n_queries", "each", "n_items", "n_excluded", "splits"])
def query_gradients_apart_kernel(
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
    """Make what ``query_gradients_kernel`` left in ``g_queries`` anew where it is not finite.

    The grid is (blocks of queries, splits, slices of the width); nearly all programs end at once.
    """
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    split = tl.program_id(1)
    column = tl.program_id(2) * C.slice + tl.arange(0, C.slice)
    g_queries += split.to(tl.int64) * n_queries * C.width
    found = load_slice(g_queries, row, n_queries, column, C)
    if tl.sum(tl.sum(found * 0.0, 1), 0) != 0.0:
        dtype = queries.dtype.element_ty
        query = load_rows(queries, row, n_queries, C)
        asked = Asked(
            *(lengths, chosen, excluded, normaliser, g_log_probability),
            *(n_queries, each, n_items, n_excluded),
        )
        total = tl.zeros((C.rows, C.slice), tl.float32)
        begin, end = bounds(split, splits, n_items, C.columns)
        for block in range(begin.to(tl.int32), end.to(tl.int32)):
            item = block * C.columns + tl.arange(0, C.columns)
            g_scores = score_gradients(
                query, load_rows(items, item, n_items, C), row, item, asked, C
            )
            finite = traces(items, item, n_items, dtype, C) == 0.0
            item = tl.where(finite, item, n_items)
            if C.cosine:
                g_scores *= tl.load(lengths + item, mask=item < n_items, other=0.0)[None, :]
            g_scores = operand(g_scores, dtype, C.tf32)
            taken = load_slice(items, item, n_items, column, C)
            taken = operand(taken, dtype, C.tf32)
            total += tl.dot(g_scores, taken, input_precision=C.precision)
        at = row.to(tl.int64)[:, None] * C.width + column[None, :]
        inside = (row < n_queries)[:, None] & (column < C.width)[None, :]
        tl.store(g_queries + at, total, mask=inside)
        for block in range(begin.to(tl.int32), end.to(tl.int32)):
            item = block * C.columns + tl.arange(0, C.columns)
            trace = traces(items, item, n_items, dtype, C)
            if tl.sum(trace, 0) != 0.0:
                for one in range(block * C.columns, (block + 1) * C.columns):
                    if tl.sum(tl.where(item == one, trace, 0.0), 0) != 0.0:
                        add_item(queries, items, one, row, column, asked, g_queries, dtype, C)
