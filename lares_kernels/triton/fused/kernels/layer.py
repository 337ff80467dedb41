"""Compute one layer on a tile, forward: pieces that forward and backward's recomputation share.

Blocks are (``C.rows``, ``C.d``) float32 in registers; ``C`` is :class:`Constants`. ``matrices`` and
``vectors`` point to the layer's own part of the packed parameters, ``info`` to the fields of the
tile's rows. Padded columns are zero. Where ``C.resident``, ``matrices`` is instead the
result of :func:`resident`, and loops over heads and columns are unrolled: a block is selected from it
at compile time.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lares_kernels.triton.fused.kernels import mixing
from lares_kernels.triton.kernels import draws, elementwise, tiles
from lares_kernels.triton.kernels.rounding import operand
from lares_kernels.triton.kernels.rows import field, mask_padding


@triton.jit
def matrix(matrices, row, ROWS: tl.constexpr, D: tl.constexpr):
    """Load ``ROWS`` rows of the packed matrices, from ``row``."""
    at = (row + tl.arange(0, ROWS))[:, None] * D + tl.arange(0, D)[None, :]
    return tl.load(matrices + at)


@triton.jit
def resident(matrices, C: tl.constexpr):
    """Return all matrices of a layer as a tuple of :func:`block`'s blocks, in order."""
    blocks = ()
    for number in tl.static_range(4 * C.heads):
        blocks = blocks + (matrix(matrices, number * C.head, C.head, C.d),)
    for number in tl.static_range(2 * C.ff // C.chunk):
        blocks = blocks + (matrix(matrices, C.up_row + number * C.chunk, C.chunk, C.d),)
    return blocks


@triton.jit
def block(matrices, row, ROWS: tl.constexpr, C: tl.constexpr):
    """Load ``ROWS`` rows of a layer's matrices, from ``row``: one head's or ``C.chunk``."""
    if C.resident:
        # No names for what is known at compile time: a name makes it a value of the run.
        if row < C.up_row:
            return matrices[row // C.head]
        else:
            return matrices[4 * C.heads + (row - C.up_row) // C.chunk]
    else:
        return matrix(matrices, row, ROWS, C.d)


@triton.jit
def to_products(x, matrices, C: tl.constexpr):
    """Cast ``x`` to the type in which products with ``matrices`` read it."""
    if C.resident:
        return operand(x, matrices[0].dtype, C.tf32)
    else:
        return operand(x, matrices.dtype.element_ty, C.tf32)


@triton.jit
def vector(vectors, at, SIZE: tl.constexpr):
    """Load ``SIZE`` numbers of the packed vectors, from ``at``, as a row (1, SIZE)."""
    return tl.load(vectors + at + tl.arange(0, SIZE))[None, :]


@triton.jit
def product(a, b, C: tl.constexpr):
    """Compute ``a b`` of two operands, summed in float32."""
    return tl.dot(a, b, input_precision=C.input_precision)


@triton.jit
def norm(x, vectors, at, C: tl.constexpr):
    """Compute LayerNorm with the weight and bias at ``at``."""
    normalised, _ = elementwise.normalise(x, C.eps, C.d, C.width)
    return normalised * vector(vectors, at, C.d) + vector(vectors, at + C.d, C.d)


class At(NamedTuple):
    """Address the draws of a layer.

    Attributes:
        index: number of the layer, if there is one.
        step: step that addresses the draws.
        seed: pointer to the draws' key.
    """

    index: Any
    step: Any
    seed: Any


@triton.jit
def kept_words(info, at, SITE: tl.constexpr, C: tl.constexpr):
    """Decide which residual columns at ``SITE`` are kept: two words of 32 for the first block, then
    two for the second.

    At ``SITE_RESIDUAL`` the first block is the attention's output, the second the feed-forward's.
    """
    position = field(info, tiles.POSITION, C)
    if C.planes > 0:
        stream = field(info, tiles.STREAM, C)
        site = draws.site_word(SITE, at.index, at.step)
        return draws.keep_words(stream, position, site, 0, at.seed, C.threshold, C.planes)
    else:
        return position, position, position, position


@triton.jit
def attention_words(info, at, head, C: tl.constexpr):
    """Decide which key positions of a head are kept: two words of 32."""
    stream = field(info, tiles.STREAM, C)
    position = field(info, tiles.POSITION, C)
    site = draws.site_word(draws.SITE_ATTENTION, at.index, at.step)
    return draws.block_words(stream, position, site, head, at.seed, C.attn_threshold, C.attn_planes)


@triton.jit
def dropped(branch, low, high, C: tl.constexpr):
    """Apply residual dropout to ``branch`` as a factor of zero, so that a dropped NaN stays NaN."""
    if C.planes > 0:
        kept = draws.kept_columns(low, high, C.d)
        return branch * tl.where(kept, C.keep_scale, 0.0)
    else:
        return branch


@triton.jit
def inner_dropped(x, info, at, column, C: tl.constexpr):
    """Apply dropout to ``C.chunk`` columns of the activations, or of their gradient."""
    if C.inner_planes > 0:
        stream = field(info, tiles.STREAM, C)
        position = field(info, tiles.POSITION, C)
        site = draws.site_word(draws.SITE_INNER, at.index, at.step)
        low, high = draws.block_words(
            stream, position, site, column // 64, at.seed, C.inner_threshold, C.inner_planes
        )
        element = column % 64 + tl.arange(0, C.chunk)[None, :]
        return x * tl.where(draws.kept(low, high, element), C.inner_keep_scale, 0.0)
    else:
        return x


@triton.jit
def visible(first, ROWS: tl.constexpr):
    """Return (ROWS, ROWS) bool: True for keys of a query's own sequence up to the query itself."""
    query = tl.arange(0, ROWS)[:, None]
    key = tl.arange(0, ROWS)[None, :]
    return (key <= query) & (key >= first[:, None])


@triton.jit
def kept_keys(low, high, first, ROWS: tl.constexpr):
    """Decide attention dropout of one head, (ROWS, ROWS) bool; valid for visible keys only.

    Bits count key positions; shifted by the start of the row's sequence they count columns, so that
    every column's shift is a compile-time constant.
    """
    word = (low.to(tl.int64) & 0xFFFFFFFF) | (high.to(tl.int64) << 32)
    word = word << first.to(tl.int64)
    return draws.kept_columns(word.to(tl.int32), (word >> 32).to(tl.int32), ROWS)


@triton.jit
def head_rows(x, matrices, vectors, head, which: tl.constexpr, C: tl.constexpr):
    """Query (``which`` = 0), key (1) or value (2) of one head, (rows, head), an operand like ``x``."""
    weight = block(matrices, (3 * head + which) * C.head, C.head, C)
    bias = vector(vectors, (3 * head + which) * C.head, C.head)
    return operand(product(x, tl.trans(weight), C) + bias, x.dtype, C.tf32)


@triton.jit
def probabilities(query, key, info, C: tl.constexpr):
    """Return (exponentials (rows, rows) of the scores less their row's maximum, 1 / their sums
    (rows,))."""
    scores = product(query, tl.trans(key), C)
    scores = tl.where(visible(field(info, tiles.FIRST, C), C.rows), scores, float("-inf"))
    if C.bands:
        scores = tl.where(field(info, tiles.SHOWN, C)[None, :] != 0, scores, float("-inf"))
    # 2^(x log2 e) is what the hardware computes.
    scores = scores * (C.score_scale * 1.4426950408889634)
    exponentials = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return exponentials, 1.0 / tl.sum(exponentials, 1)


@triton.jit
def head_branch(x, query_input, matrices, vectors, info, at, head, C: tl.constexpr):
    """Compute one head's part of ``W_o (Dropout_attn(A) V)``."""
    query = head_rows(query_input, matrices, vectors, head, 0, C)
    key = head_rows(x, matrices, vectors, head, 1, C)
    value = head_rows(x, matrices, vectors, head, 2, C)
    weights, scale = probabilities(query, key, info, C)
    if C.attn_planes > 0:
        low, high = attention_words(info, at, head, C)
        first = field(info, tiles.FIRST, C)
        weights = tl.where(kept_keys(low, high, first, C.rows), weights, 0.0)
        scale = scale * C.attn_keep_scale
    weights = operand(weights, value.dtype, C.tf32)
    context = product(weights, value, C) * scale[:, None]
    out = block(matrices, C.out_row + head * C.head, C.head, C)
    return product(operand(context, out.dtype, C.tf32), out, C)


@triton.jit
def attention(x, query_input, matrices, vectors, info, at, C: tl.constexpr):
    """Compute ``W_o (Dropout_attn(A) V) + b_o`` of ``x``; its queries are of ``query_input``,
    often the same."""
    x = to_products(x, matrices, C)
    query_input = to_products(query_input, matrices, C)
    branch = tl.zeros((C.rows, C.d), tl.float32) + vector(vectors, C.out_bias_at, C.d)
    if C.resident:
        for head in tl.static_range(C.heads):
            branch += head_branch(x, query_input, matrices, vectors, info, at, head, C)
    else:
        # A loop that stays one: unrolled, the compiler mixes heads and runs out of registers.
        for head in tl.range(C.heads):
            branch += head_branch(x, query_input, matrices, vectors, info, at, head, C)
    return branch


@triton.jit
def column_branch(x, matrices, vectors, info, at, column, C: tl.constexpr):
    """Compute the part of ``W_2 act(W_1 x + b_1)`` by ``C.chunk`` columns of the inner layer."""
    inner = product(x, tl.trans(block(matrices, C.up_row + column, C.chunk, C)), C)
    inner += vector(vectors, C.up_bias_at + column, C.chunk)
    activated = elementwise.activate(inner, C.activation, C.exact)
    activated = inner_dropped(activated, info, at, column, C)
    down = block(matrices, C.down_row + column, C.chunk, C)
    return product(operand(activated, down.dtype, C.tf32), down, C)


@triton.jit
def feed_forward(x, matrices, vectors, info, at, C: tl.constexpr):
    """Compute ``W_2 act(W_1 x + b_1) + b_2``, a few columns of the inner layer at a time."""
    x = to_products(x, matrices, C)
    branch = tl.zeros((C.rows, C.d), tl.float32) + vector(vectors, C.down_bias_at, C.d)
    if C.resident:
        for column in tl.static_range(0, C.ff, C.chunk):
            branch += column_branch(x, matrices, vectors, info, at, column, C)
    else:
        for column in tl.range(0, C.ff, C.chunk):
            branch += column_branch(x, matrices, vectors, info, at, column, C)
    return branch


@triton.jit
def bands_sum(x, transforms, vectors, info, at, C: tl.constexpr):
    """Return ``x`` plus its rescaled bands, before LayerNorm; ``x`` unless ``bsarec``."""
    if C.bands:
        branch, _ = mixing.rescaled(x, transforms, vectors, C)
        if not C.spares_attention:
            low, high, _, _ = kept_words(info, at, draws.SITE_BANDS, C)
            branch = dropped(branch, low, high, C)
        return x + branch
    else:
        return x


@triton.jit
def mixing_sum(x, transforms, matrices, vectors, info, at, C: tl.constexpr):
    """Return ``x`` (query-norm: its LayerNorm) plus the attention's or filter's output, before any
    LayerNorm of the sum.

    It also returns the words of the feed-forward's dropout, from the same call of the generator.
    """
    source = x
    query_input = x
    if C.pre:
        source = norm(x, vectors, C.attn_norm_at, C)
        query_input = source
    elif C.query:
        query_input = norm(x, vectors, C.attn_norm_at, C)
        x = query_input
    else:
        tl.static_assert(C.post, "no kernel has this norm")
    if C.filters:
        branch = mixing.filtered(x, transforms, vectors, info, C)
    elif C.attends:
        branch = attention(source, query_input, matrices, vectors, info, at, C)
    else:
        tl.static_assert(False, "no kernel has this mixer")
    low, high, next_low, next_high = kept_words(info, at, draws.SITE_RESIDUAL, C)
    if not C.spares_attention:
        branch = dropped(branch, low, high, C)
    return x + branch, next_low, next_high


@triton.jit
def feed_forward_input(mixing_sum, bands_sum, vectors, C: tl.constexpr):
    """Return (what the feed-forward's output is added to, what the feed-forward reads)."""
    if C.post:
        u = norm(mixing_sum, vectors, C.attn_norm_at, C)
        if C.bands:
            u = C.share * norm(bands_sum, vectors, C.bands_norm_at, C) + (1.0 - C.share) * u
        return u, u
    elif C.query:
        source = norm(mixing_sum, vectors, C.ffn_norm_at, C)
        return source, source
    elif C.pre:
        return mixing_sum, norm(mixing_sum, vectors, C.ffn_norm_at, C)
    else:
        tl.static_assert(False, "no kernel has this norm")


@triton.jit
def feed_forward_sum(
    mixing_sum, bands_sum, matrices, vectors, info, at, low, high, C: tl.constexpr
):
    """Compute the feed-forward branch and its residual, before any LayerNorm of the sum."""
    u, source = feed_forward_input(mixing_sum, bands_sum, vectors, C)
    branch = feed_forward(source, matrices, vectors, info, at, C)
    return u + dropped(branch, low, high, C)


@triton.jit
def layer_output(feed_forward_sum, vectors, C: tl.constexpr):
    """Compute a layer's output from its second residual sum."""
    if C.post:
        return norm(feed_forward_sum, vectors, C.ffn_norm_at, C)
    elif C.pre or C.query:
        return feed_forward_sum
    else:
        tl.static_assert(False, "no kernel has this norm")


@triton.jit
def layer_forward(x, transforms, matrices, vectors, info, at, C: tl.constexpr):
    """Compute one layer, post-, pre- or query-norm."""
    mixed, low, high = mixing_sum(x, transforms, matrices, vectors, info, at, C)
    bands = bands_sum(x, transforms, vectors, info, at, C)
    x = feed_forward_sum(mixed, bands, matrices, vectors, info, at, low, high, C)
    return mask_padding(layer_output(x, vectors, C), info, C)


@triton.jit
def adapt(state, hidden, matrices, vectors, C: tl.constexpr):
    """Combine state and ``H`` by the adapter; the packed arrays are passed whole."""
    if C.concat:
        dtype = matrices.dtype.element_ty
        state = operand(state, dtype, C.tf32)
        hidden = operand(hidden, dtype, C.tf32)
        of_state = product(state, tl.trans(matrix(matrices, C.concat_row, C.d, C.d)), C)
        of_hidden = product(hidden, tl.trans(matrix(matrices, C.concat_row + C.d, C.d, C.d)), C)
        return of_state + of_hidden + vector(vectors, C.concat_bias_at, C.d)
    elif C.gated:
        gate = tl.sigmoid(tl.load(vectors + C.gate_at))
        return gate * state + (1.0 - gate) * hidden
    elif C.adds:
        return (state + hidden) * 0.5
    else:
        tl.static_assert(False, "no kernel has this adapter")
