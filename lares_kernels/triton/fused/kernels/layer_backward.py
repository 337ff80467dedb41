"""Compute a layer's backward on a tile in registers (``reference/backward.py``'s ``layer_backward``).

The operands of the weights' gradients go to memory as pairs of rows: *units*, one column for
each row of the packed matrices (gradients of queries, keys and values; attention contexts; gradients
of the inner layer; its activations), and *sides*, ``d`` columns for each of the four products
(attention's input, gradient of its output; feed-forward's input, gradient of its output; with
query-norm a fifth, the queries' input). The gradient of matrix row ``i`` is the sum over tokens of unit
``i`` times the side of its product.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lares_kernels.triton.fused.kernels import layer, mixing
from lares_kernels.triton.kernels import draws, elementwise, tiles
from lares_kernels.triton.kernels.rounding import operand, to_store
from lares_kernels.triton.kernels.rows import field, mask_padding

ATTENTION_INPUT: tl.constexpr = tl.constexpr(0)
ATTENTION_GRADIENT: tl.constexpr = tl.constexpr(1)
FEED_FORWARD_INPUT: tl.constexpr = tl.constexpr(2)
FEED_FORWARD_GRADIENT: tl.constexpr = tl.constexpr(3)
QUERIES_INPUT: tl.constexpr = tl.constexpr(4)  # query-norm


@triton.jit
def store_columns(
    base, info, step, at, values, STRIDE: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr
):
    """Store columns ``at ..`` of a tile's rows that run ``step``, from ``base``, ``STRIDE``
    apart."""
    to = base + tl.arange(0, C.rows)[:, None] * STRIDE + at + tl.arange(0, WIDTH)[None, :]
    depth = field(info, tiles.DEPTH, C)
    tl.store(to, values, mask=((depth > 0) & (depth >= step))[:, None])


@triton.jit
def add_to(gradients, at, rows, D: tl.constexpr):
    """Add the sum over ``rows`` (R, D) to the program's own gradients, which no other touches."""
    to = gradients + at + tl.arange(0, D)
    tl.store(to, tl.load(to) + tl.sum(rows, 0))


class Memory(NamedTuple):
    """Hold the arrays that backward reads and writes, of all layers or of one.

    Attributes:
        transforms: matrices of the tile's windows.
        matrices, vectors: packed parameters.
        gradients: the program's own gradients of LayerNorms, laid out like ``vectors``.
        scratch: results of :func:`recompute_layer`.
        units, sides: those of a step; a layer's begin at the tile's first row.
    """

    transforms: Any
    matrices: Any
    vectors: Any
    gradients: Any
    scratch: Any
    units: Any
    sides: Any


@triton.jit
def norm_backward(g_y, normalised, inverse_std, own, at, C: tl.constexpr):
    """Return the gradient of a LayerNorm's input; add those of its weight and bias."""
    add_to(own.gradients, at, g_y * normalised, C.d)
    add_to(own.gradients, at + C.d, g_y, C.d)
    g_normalised = g_y * layer.vector(own.vectors, at, C.d)
    return elementwise.normalise_backward(g_normalised, normalised, inverse_std, C.width)


@triton.jit
def feed_forward_backward(g_branch, source, own, info, at, step, C: tl.constexpr):
    """Return the gradient of the feed-forward's input ``source``; write its units."""
    g_source = tl.zeros((C.rows, C.d), tl.float32)
    for column in tl.range(0, C.ff, C.chunk):
        up = layer.matrix(own.matrices, C.up_row + column, C.chunk, C.d)
        inner = layer.product(source, tl.trans(up), C)
        inner += layer.vector(own.vectors, C.up_bias_at + column, C.chunk)
        activated, slope = elementwise.activate_with_slope(inner, C.activation, C.exact)
        activated = layer.inner_dropped(activated, info, at, column, C)
        slope = layer.inner_dropped(slope, info, at, column, C)
        activated = to_store(activated, C.tf32)
        row = C.down_row + column
        store_columns(own.units, info, step, row, activated, C.layer_rows, C.chunk, C)
        down = layer.matrix(own.matrices, row, C.chunk, C.d)
        g_inner = layer.product(g_branch, tl.trans(down), C) * slope
        g_inner = operand(g_inner, up.dtype, C.tf32)
        store_columns(own.units, info, step, C.up_row + column, g_inner, C.layer_rows, C.chunk, C)
        g_source += layer.product(g_inner, up, C)
    return g_source


@triton.jit
def attention_backward(g_branch, source, query_input, own, info, at, step, C: tl.constexpr):
    """Return gradients of the attention's input ``source`` and, with query-norm, of its queries'
    input.

    It writes attention's units.
    """
    g_source = tl.zeros((C.rows, C.d), tl.float32)
    g_queries = g_source
    for head in tl.range(C.heads):
        query = layer.head_rows(query_input, own.matrices, own.vectors, head, 0, C)
        key = layer.head_rows(source, own.matrices, own.vectors, head, 1, C)
        value = layer.head_rows(source, own.matrices, own.vectors, head, 2, C)
        weights, scale = layer.probabilities(query, key, info, C)
        weights = weights * scale[:, None]
        if C.attn_planes > 0:
            low, high = layer.attention_words(info, at, head, C)
            kept = layer.kept_keys(low, high, field(info, tiles.FIRST, C), C.rows)
            # A dropped probability is kept as a negative one: a mask beside them takes registers.
            weights = tl.where(kept, weights, -weights)
        kept_weights = tl.maximum(weights, 0.0, elementwise.PASS) * C.attn_keep_scale
        kept_weights = operand(kept_weights, source.dtype, C.tf32)
        context = to_store(layer.product(kept_weights, value, C), C.tf32)
        out_row = C.out_row + head * C.head
        store_columns(own.units, info, step, out_row, context, C.layer_rows, C.head, C)
        out = layer.matrix(own.matrices, out_row, C.head, C.d)
        g_context = operand(layer.product(g_branch, tl.trans(out), C), source.dtype, C.tf32)

        row = (3 * head + 2) * C.head
        g_value = operand(layer.product(tl.trans(kept_weights), g_context, C), source.dtype, C.tf32)
        store_columns(own.units, info, step, row, g_value, C.layer_rows, C.head, C)
        g_source += layer.product(g_value, layer.matrix(own.matrices, row, C.head, C.d), C)
        g_weights = layer.product(g_context, tl.trans(value), C)
        if C.attn_planes > 0:
            g_weights = tl.where(weights > 0.0, g_weights * C.attn_keep_scale, 0.0)
            weights = tl.abs(weights)
        # Softmax: g_score = A (g_A - sum_j A_j g_A_j); hidden keys have A = 0.
        along = tl.sum(g_weights * weights, 1)
        g_scores = weights * (g_weights - along[:, None]) * C.score_scale
        g_scores = operand(g_scores, source.dtype, C.tf32)
        row = 3 * head * C.head
        g_query = operand(layer.product(g_scores, key, C), source.dtype, C.tf32)
        store_columns(own.units, info, step, row, g_query, C.layer_rows, C.head, C)
        g_here = layer.product(g_query, layer.matrix(own.matrices, row, C.head, C.d), C)
        if C.query:
            g_queries += g_here
        else:
            g_source += g_here
        row += C.head
        g_key = operand(layer.product(tl.trans(g_scores), query, C), source.dtype, C.tf32)
        store_columns(own.units, info, step, row, g_key, C.layer_rows, C.head, C)
        g_source += layer.product(g_key, layer.matrix(own.matrices, row, C.head, C.d), C)
    return g_source, g_queries


@triton.jit
def load_tile(scratch, which: tl.constexpr, C: tl.constexpr):
    """Load block ``which`` of a tile's scratch memory."""
    at = tl.arange(0, C.rows)[:, None] * C.d + tl.arange(0, C.d)[None, :]
    return tl.load(scratch + which * (C.rows * C.d) + at)


@triton.jit
def store_tile(scratch, which: tl.constexpr, block, C: tl.constexpr):
    """Write block ``which`` of a tile's scratch memory."""
    at = tl.arange(0, C.rows)[:, None] * C.d + tl.arange(0, C.d)[None, :]
    tl.store(scratch + which * (C.rows * C.d) + at, block)


@triton.jit
def replace_tile(scratch, which: tl.constexpr, block, C: tl.constexpr):
    """Call :func:`store_tile` between barriers, as other threads read the block."""
    tl.debug_barrier()
    store_tile(scratch, which, block, C)
    tl.debug_barrier()


@triton.jit
def recompute_layer(x, own, info, at, C: tl.constexpr):
    """Recompute the layer, leaving its input and its residual sums in ``own.scratch``."""
    scratch = own.scratch
    store_tile(scratch, 0, x, C)
    mixed, low, high = layer.mixing_sum(x, own.transforms, own.matrices, own.vectors, info, at, C)
    store_tile(scratch, 1, mixed, C)
    if C.bands:
        tl.debug_barrier()
    bands = layer.bands_sum(x, own.transforms, own.vectors, info, at, C)
    if C.bands:
        store_tile(scratch, 3, bands, C)
        mixed = load_tile(scratch, 1, C)  # read again rather than held meanwhile
    x = layer.feed_forward_sum(mixed, bands, own.matrices, own.vectors, info, at, low, high, C)
    store_tile(scratch, 2, x, C)
    return mask_padding(layer.layer_output(x, own.vectors, C), info, C)


@triton.jit
def through_attention(g_sum, g_branch, gradient, own, info, at, step, C: tl.constexpr):
    """Turn ``gradient`` into that of the layer's input, where ``g_branch`` is the attention's output's
    and ``g_sum`` what goes past it."""
    dtype = own.matrices.dtype.element_ty
    side: tl.constexpr = C.sides * C.d
    g_branch = operand(g_branch, dtype, C.tf32)
    store_columns(own.sides, info, step, ATTENTION_GRADIENT * C.d, g_branch, side, C.d, C)
    x = load_tile(own.scratch, 0, C)
    query_input = x
    if not C.post:
        query_input = layer.norm(x, own.vectors, C.attn_norm_at, C)
    query_input = operand(query_input, dtype, C.tf32)
    source = query_input
    if C.query:
        source = operand(x, dtype, C.tf32)
        store_columns(own.sides, info, step, QUERIES_INPUT * C.d, query_input, side, C.d, C)
    store_columns(own.sides, info, step, ATTENTION_INPUT * C.d, source, side, C.d, C)
    replace_tile(gradient, 0, g_sum, C)
    g_source, g_queries = attention_backward(g_branch, source, query_input, own, info, at, step, C)
    g_sum = load_tile(gradient, 0, C)
    if C.bands:
        g_sum += load_tile(own.scratch, 3, C)
    if not C.post:
        normalised, inverse_std = elementwise.normalise(
            load_tile(own.scratch, 0, C), C.eps, C.d, C.width
        )
        if C.query:
            g_sum = norm_backward(
                g_sum + g_queries, normalised, inverse_std, own, C.attn_norm_at, C
            )
        else:
            tl.static_assert(C.pre, "no kernel has this norm")
            g_source = norm_backward(g_source, normalised, inverse_std, own, C.attn_norm_at, C)
    replace_tile(gradient, 0, mask_padding(g_sum + g_source, info, C), C)


@triton.jit
def bands_backward(gradient, own, info, at, C: tl.constexpr):
    """Leave in block 3 of ``own.scratch`` the gradient of the layer's input by way of the bands.

    ``gradient`` is that of the weighted sum of their LayerNorm's result and attention's.
    """
    normalised, inverse_std = elementwise.normalise(
        load_tile(own.scratch, 3, C), C.eps, C.d, C.width
    )
    g_branch = norm_backward(
        C.share * load_tile(gradient, 0, C), normalised, inverse_std, own, C.bands_norm_at, C
    )
    replace_tile(own.scratch, 3, g_branch, C)
    if not C.spares_attention:
        low, high, _, _ = layer.kept_words(info, at, draws.SITE_BANDS, C)
        g_branch = layer.dropped(g_branch, low, high, C)
    g_x, g_high = mixing.rescaled(g_branch, own.transforms, own.vectors, C)
    tl.debug_barrier()  # no block is read ahead: registers are scarce
    # Of b^2: the gradient times the input's high band is the input times the gradient's.
    scale = layer.vector(own.vectors, C.band_scale_at, C.d)
    add_to(own.gradients, C.band_scale_at, 2.0 * scale * g_high * load_tile(own.scratch, 0, C), C.d)
    replace_tile(own.scratch, 3, load_tile(own.scratch, 3, C) + g_x, C)


@triton.jit
def layer_backward(gradient, own, info, at, step, C: tl.constexpr):
    """Return the gradient of a layer's input.

    Args:
        gradient: a block in memory, the gradient of the layer's output, then of its input. It is
            spilled there while other data needs the registers.
        own: the layer's memory.
        info: fields of the tile's rows.
        at, step: address of its draws, and the step as this call counts it.
    """
    dtype = own.matrices.dtype.element_ty
    side: tl.constexpr = C.sides * C.d
    _, _, low, high = layer.kept_words(info, at, draws.SITE_RESIDUAL, C)
    mixing_sum = load_tile(own.scratch, 1, C)
    if C.post:
        normalised, inverse_std = elementwise.normalise(
            load_tile(own.scratch, 2, C), C.eps, C.d, C.width
        )
        g_y = load_tile(gradient, 0, C)
        g_sum = norm_backward(g_y, normalised, inverse_std, own, C.ffn_norm_at, C)
    else:
        tl.static_assert(C.pre or C.query, "no kernel has this norm")
        g_sum = load_tile(gradient, 0, C)
    bands_sum = None
    if C.bands:
        bands_sum = load_tile(own.scratch, 3, C)
    _, source = layer.feed_forward_input(mixing_sum, bands_sum, own.vectors, C)
    source = operand(source, dtype, C.tf32)
    g_branch = operand(layer.dropped(g_sum, low, high, C), dtype, C.tf32)
    store_columns(own.sides, info, step, FEED_FORWARD_GRADIENT * C.d, g_branch, side, C.d, C)
    store_columns(own.sides, info, step, FEED_FORWARD_INPUT * C.d, source, side, C.d, C)
    replace_tile(gradient, 0, g_sum, C)
    g_source = feed_forward_backward(g_branch, source, own, info, at, step, C)
    g_sum = load_tile(gradient, 0, C)
    normalised, inverse_std = elementwise.normalise(
        load_tile(own.scratch, 1, C), C.eps, C.d, C.width
    )
    if C.post:
        g_u = g_sum + g_source
        if C.bands:
            replace_tile(gradient, 0, g_u, C)
            bands_backward(gradient, own, info, at, C)
            g_u = (1.0 - C.share) * load_tile(gradient, 0, C)
            normalised, inverse_std = elementwise.normalise(
                load_tile(own.scratch, 1, C), C.eps, C.d, C.width
            )
        g_sum = norm_backward(g_u, normalised, inverse_std, own, C.attn_norm_at, C)
    elif C.query:
        g_sum = norm_backward(g_sum + g_source, normalised, inverse_std, own, C.ffn_norm_at, C)
    else:
        tl.static_assert(C.pre, "no kernel has this norm")
        g_sum += norm_backward(g_source, normalised, inverse_std, own, C.ffn_norm_at, C)

    low, high, _, _ = layer.kept_words(info, at, draws.SITE_RESIDUAL, C)
    g_branch = g_sum
    if not C.spares_attention:
        g_branch = layer.dropped(g_sum, low, high, C)
    if C.filters:
        sums = own.gradients + C.vector_size - at.index * C.layer_vector + at.index * C.filter_sums
        g_source = mixing.filtered_backward(
            g_branch, load_tile(own.scratch, 0, C), own.transforms, own.vectors, info, sums, C
        )
        replace_tile(gradient, 0, mask_padding(g_sum + g_source, info, C), C)
    else:
        tl.static_assert(C.attends, "no kernel has this mixer")
        through_attention(g_sum, g_branch, gradient, own, info, at, step, C)
