"""Compute causal attention over packed sequences of any length, with the shared dropout decisions.

As in FlashAttention-2 (Dao, 2023), a program holds a block of queries and iterates over blocks of keys
with an online softmax, or, for the gradients of keys and values, the other way round; probabilities are
never stored. ``qkv`` and ``g_context`` hold products' operands, rounded for tf32. ``qkv`` is (N, 3
width): query, key and value of every row, head ``i`` in columns
``i head_width ..`` of each.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lares_kernels.triton.kernels import draws
from lares_kernels.triton.kernels.rounding import operand

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def part(base, row, length, head, which: tl.constexpr, parts: tl.constexpr, C: tl.constexpr):
    """Return where positions ``row`` of a sequence lie in ``parts`` widths, and which ones
    exist."""
    column = tl.arange(0, C.head)[None, :]
    at = row.to(tl.int64)[:, None] * (parts * C.width)
    at += which * C.width + head * C.head_width + column
    return base + at, (row < length)[:, None] & (column < C.head_width)


@triton.jit
def load_part(base, row, length, head, which: tl.constexpr, parts: tl.constexpr, C: tl.constexpr):
    """Load positions ``row`` of one head, (rows, head), with zeros where there are none."""
    at, real = part(base, row, length, head, which, parts, C)
    return tl.load(at, mask=real, other=0.0)


class At(NamedTuple):
    """Address the draws of a head: its sequence's first counter word, layer, step, and key."""

    stream: Any
    head: Any
    layer: Any
    step: Any
    seed: Any


@triton.jit
def kept_keys(at, query, first_key, KEYS: tl.constexpr, C: tl.constexpr):
    """Decide attention dropout, (queries, KEYS) bool, for keys from ``first_key``.

    A word holds 64 key positions; ``KEYS`` divides 64.
    """
    site = draws.site_word(draws.SITE_ATTENTION, at.layer, at.step)
    block = (first_key // 64) * C.heads + at.head
    low0, high0, low1, high1 = draws.keep_words(
        query * 0 + at.stream, query, site, block >> 1, at.seed, C.attn_threshold, C.attn_planes
    )
    odd = (block & 1) != 0
    low = tl.where(odd, low1, low0)
    high = tl.where(odd, high1, high0)
    return draws.kept(low, high, first_key % 64 + tl.arange(0, KEYS)[None, :])


@triton.jit
def visible(query, key, n_keys):
    """Mark visible keys, (queries, keys) bool: the sequence's first ``n_keys``, up to the query
    itself."""
    return (key[None, :] <= query[:, None]) & (key < n_keys)[None, :]


@triton.jit
def sequence_of(starts, keys):
    """Return (first packed row, rows, rows that may be attended to) of this program's sequence."""
    start = tl.load(starts + tl.program_id(0))
    length = tl.load(starts + tl.program_id(0) + 1) - start
    n_keys = length
    if keys is not None:
        n_keys = tl.load(keys + tl.program_id(0))
    return start, length, n_keys


@triton.jit(do_not_specialize=["n_rows", "layer", "step", "seed"])
def attention_kernel(
    qkv,
    context,
    lse,
    starts,
    keys,
    streams,
    n_rows,
    layer,
    step,
    seed,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    C: tl.constexpr,
):
    """Compute ``Dropout(softmax(Q K^T / sqrt(d/h))) V`` of every head.

    A program for each (sequence, block of queries, head).

    Args:
        qkv: (N, 3 width) in the products' type.
        context: (N, width) out, in the products' type.
        lse: (heads, n_rows) float32 out, base-2 logarithm of each softmax's denominator, or None.
        starts: (S + 1,) int32, first packed row of each sequence.
        keys: (S,) int32, rows at the start of each sequence that may be attended to, or None for all.
        streams: (S,) int32, first counter word of each sequence.
    """
    start, length, n_keys = sequence_of(starts, keys)
    first_query = tl.program_id(1) * QUERIES
    head = tl.program_id(2)
    if first_query < length:
        draw = At(tl.load(streams + tl.program_id(0)), head, layer, step, seed)
        qkv += start.to(tl.int64) * (3 * C.width)
        query = first_query + tl.arange(0, QUERIES)
        q = load_part(qkv, query, length, head, 0, 3, C)
        greatest = tl.full((QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        mixed = tl.zeros((QUERIES, C.head), tl.float32)
        for first_key in range(0, tl.minimum(first_query + QUERIES, n_keys), KEYS):
            key = first_key + tl.arange(0, KEYS)
            k = load_part(qkv, key, length, head, 1, 3, C)
            v = load_part(qkv, key, length, head, 2, 3, C)
            scores = tl.dot(q, tl.trans(k), input_precision=C.input_precision)
            scores = scores * (C.score_scale * LOG2_E)
            scores = tl.where(visible(query, key, n_keys), scores, float("-inf"))
            # Every query sees key 0, so what is greatest so far is finite.
            new_greatest = tl.maximum(greatest, tl.max(scores, 1))
            shrink = tl.exp2(greatest - new_greatest)
            weights = tl.exp2(scores - new_greatest[:, None])
            total = total * shrink + tl.sum(weights, 1)
            if C.attn_planes > 0:
                kept = kept_keys(draw, query, first_key, KEYS, C)
                weights = tl.where(kept, weights, 0.0)
            mixed = mixed * shrink[:, None]
            mixed += tl.dot(operand(weights, v.dtype, C.tf32), v, input_precision=C.input_precision)
            greatest = new_greatest
        mixed = mixed * (C.attn_keep_scale / total)[:, None]
        at, real = part(context + start.to(tl.int64) * C.width, query, length, head, 0, 1, C)
        tl.store(at, mixed, mask=real)
        if lse is not None:
            at = lse + head.to(tl.int64) * n_rows + start + query
            tl.store(at, greatest + tl.log2(total), mask=query < length)


@triton.jit
def score_gradients(
    q, k, v, g, lse, delta, draw, query, first_key, n_keys, KEYS: tl.constexpr, C: tl.constexpr
):
    """Return (dropped probabilities, gradient of the scaled scores), both (queries, KEYS) float32.

    Softmax: ``g_score = A (g_A - sum_j A_j g_A_j)``, and that sum, ``delta``, is the row's context
    times its gradient, dropout or not.
    """
    key = first_key + tl.arange(0, KEYS)
    scores = tl.dot(q, tl.trans(k), input_precision=C.input_precision)
    weights = tl.exp2(scores * (C.score_scale * LOG2_E) - lse[:, None])
    weights = tl.where(visible(query, key, n_keys), weights, 0.0)
    g_weights = tl.dot(g, tl.trans(v), input_precision=C.input_precision)
    used = weights
    if C.attn_planes > 0:
        kept = kept_keys(draw, query, first_key, KEYS, C)
        used = tl.where(kept, weights * C.attn_keep_scale, 0.0)
        g_weights = tl.where(kept, g_weights * C.attn_keep_scale, 0.0)
    return used, weights * (g_weights - delta[:, None]) * C.score_scale


@triton.jit(do_not_specialize=["n_rows", "layer", "step", "seed"])
def query_gradient_kernel(
    qkv,
    context,
    g_context,
    lse,
    delta,
    g_qkv,
    starts,
    keys,
    streams,
    n_rows,
    layer,
    step,
    seed,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    C: tl.constexpr,
):
    """Write the queries' part of ``g_qkv`` (N, 3 width), and ``delta`` (heads, n_rows) float32
    for the others'."""
    start, length, n_keys = sequence_of(starts, keys)
    first_query = tl.program_id(1) * QUERIES
    head = tl.program_id(2)
    if first_query < length:
        draw = At(tl.load(streams + tl.program_id(0)), head, layer, step, seed)
        wide = start.to(tl.int64)
        qkv += wide * (3 * C.width)
        query = first_query + tl.arange(0, QUERIES)
        q = load_part(qkv, query, length, head, 0, 3, C)
        g = load_part(g_context + wide * C.width, query, length, head, 0, 1, C)
        mixed = load_part(context + wide * C.width, query, length, head, 0, 1, C)
        row = head.to(tl.int64) * n_rows + start + query
        own_delta = tl.sum(g.to(tl.float32) * mixed.to(tl.float32), 1)
        tl.store(delta + row, own_delta, mask=query < length)
        own_lse = tl.load(lse + row, mask=query < length, other=0.0)
        g_q = tl.zeros((QUERIES, C.head), tl.float32)
        for first_key in range(0, tl.minimum(first_query + QUERIES, n_keys), KEYS):
            key = first_key + tl.arange(0, KEYS)
            k = load_part(qkv, key, length, head, 1, 3, C)
            v = load_part(qkv, key, length, head, 2, 3, C)
            _, g_scores = score_gradients(
                q, k, v, g, own_lse, own_delta, draw, query, first_key, n_keys, KEYS, C
            )
            g_scores = operand(g_scores, k.dtype, C.tf32)
            g_q += tl.dot(g_scores, k, input_precision=C.input_precision)
        at, real = part(g_qkv + wide * (3 * C.width), query, length, head, 0, 3, C)
        tl.store(at, g_q, mask=real)


@triton.jit(do_not_specialize=["n_rows", "layer", "step", "seed"])
def key_gradient_kernel(
    qkv,
    g_context,
    lse,
    delta,
    g_qkv,
    starts,
    keys,
    streams,
    n_rows,
    layer,
    step,
    seed,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    C: tl.constexpr,
):
    """Write the keys' and values' part of ``g_qkv``; a program for each (sequence, keys, head)."""
    start, length, n_keys = sequence_of(starts, keys)
    first_key = tl.program_id(1) * KEYS
    head = tl.program_id(2)
    if first_key < length:
        draw = At(tl.load(streams + tl.program_id(0)), head, layer, step, seed)
        wide = start.to(tl.int64)
        qkv += wide * (3 * C.width)
        key = first_key + tl.arange(0, KEYS)
        k = load_part(qkv, key, length, head, 1, 3, C)
        v = load_part(qkv, key, length, head, 2, 3, C)
        g_k = tl.zeros((KEYS, C.head), tl.float32)
        g_v = tl.zeros((KEYS, C.head), tl.float32)
        for first_query in range(first_key // QUERIES * QUERIES, length, QUERIES):
            query = first_query + tl.arange(0, QUERIES)
            q = load_part(qkv, query, length, head, 0, 3, C)
            g = load_part(g_context + wide * C.width, query, length, head, 0, 1, C)
            row = head.to(tl.int64) * n_rows + start + query
            own_lse = tl.load(lse + row, mask=query < length, other=0.0)
            own_delta = tl.load(delta + row, mask=query < length, other=0.0)
            used, g_scores = score_gradients(
                q, k, v, g, own_lse, own_delta, draw, query, first_key, n_keys, KEYS, C
            )
            used = tl.trans(operand(used, g.dtype, C.tf32))
            g_v += tl.dot(used, g, input_precision=C.input_precision)
            g_scores = tl.trans(operand(g_scores, q.dtype, C.tf32))
            g_k += tl.dot(g_scores, q, input_precision=C.input_precision)
        g_qkv += wide * (3 * C.width)
        at, real = part(g_qkv, key, length, head, 1, 3, C)
        tl.store(at, g_k, mask=real)
        at, real = part(g_qkv, key, length, head, 2, 3, C)
        tl.store(at, g_v, mask=real)
