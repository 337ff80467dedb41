"""Compute gradients of matrices and biases: products over all tokens and steps of what backward
spilled.

The sum over tokens is split among programs in a fixed way and their parts are added in order, so two
runs give the same bits.
"""

import triton
import triton.language as tl

from lares_kernels.triton.fused.kernels.layer_backward import QUERIES_INPUT


@triton.jit(do_not_specialize=["kept_rows", "n_steps", "first_step", "splits", "begins"])
def weights_kernel(
    units,
    sides,
    row_depth,
    totals,
    g_matrices,
    g_vectors,
    kept_rows,
    n_steps,
    first_step,
    splits,
    begins,
    CONCAT: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    C: tl.constexpr,
):
    """Compute a block of matrix rows of one layer, over one part of the tokens.

    The grid is (row blocks, layers, splits); with ``CONCAT`` it is (blocks of ``2 d`` rows, 1,
    splits), and ``units`` and ``sides`` are both the rows that ``concat_backward`` wrote.

    Args:
        units, sides: of ``n_steps`` steps from ``first_step``.
        row_depth, totals: of the tile plan.
        g_matrices: (splits, matrix_rows, d) float32 out.
        g_vectors: (splits, vector_size) float32 out, biases only.
        begins: set them (1) or add to them (0).
        BLOCK: matrix rows of a program; divides each kind's.
        TOKENS: tokens multiplied at a time.
    """
    row = tl.program_id(0) * BLOCK
    layer = tl.program_id(1)
    split = tl.program_id(2)
    if CONCAT:
        unit_at = row % C.d
        side_at = C.d + row // C.d * C.d
        unit_stride: tl.constexpr = 3 * C.d
        side_stride: tl.constexpr = 3 * C.d
        layers = 1
        matrix_row = C.concat_row + row
    else:
        unit_at = row
        side = (
            (row >= C.out_row).to(tl.int32)
            + (row >= C.up_row).to(tl.int32)
            + (row >= C.down_row).to(tl.int32)
        )
        if C.query:
            is_query = (row < C.out_row) & (row // C.head % 3 == 0)
            side = tl.where(is_query, QUERIES_INPUT, side)
        side_at = side * C.d
        unit_stride: tl.constexpr = C.layer_rows
        side_stride: tl.constexpr = C.sides * C.d
        layers = C.layers
        matrix_row = layer * C.layer_rows + row
    unit_at = tl.multiple_of(unit_at, 16)
    side_at = tl.multiple_of(side_at, 16)
    unit = unit_at + tl.arange(0, BLOCK)[None, :]
    column = side_at + tl.arange(0, C.d)[None, :]

    n_rows = tl.load(totals + 1)
    blocks = tl.cdiv(n_rows, TOKENS)
    total = tl.zeros((BLOCK, C.d), tl.float32)
    unit_total = tl.zeros((BLOCK,), tl.float32)
    side_total = tl.zeros((C.d,), tl.float32)
    for i in range(split, blocks * n_steps, splits):
        place = i // blocks
        token = (i - place * blocks) * TOKENS + tl.arange(0, TOKENS)
        depth = tl.load(row_depth + token, mask=token < n_rows, other=-1)
        mask = (depth >= first_step + place)[:, None]
        at = (place * layers + layer) * kept_rows.to(tl.int64) + token
        unit_rows = tl.load(units + at[:, None] * unit_stride + unit, mask=mask, other=0.0)
        side_rows = tl.load(sides + at[:, None] * side_stride + column, mask=mask, other=0.0)
        total += tl.dot(tl.trans(unit_rows), side_rows, input_precision=C.input_precision)
        unit_total += tl.sum(unit_rows.to(tl.float32), 0)
        side_total += tl.sum(side_rows.to(tl.float32), 0)

    to = g_matrices + split.to(tl.int64) * (C.matrix_rows * C.d)
    to += (matrix_row + tl.arange(0, BLOCK))[:, None] * C.d + tl.arange(0, C.d)[None, :]
    # Masks are blocks: Triton 3.9's interpreter does not take a single bool for one.
    once = tl.zeros((1,), tl.int32)
    adds = once + begins == 0
    tl.store(to, total + tl.load(to, mask=adds[:, None], other=0.0))

    # Biases: the sums of gradients of what they are added to, which are units or sides.
    g_vectors += split * C.vector_size
    unit_to = g_vectors + tl.arange(0, BLOCK)
    side_to = g_vectors + tl.arange(0, C.d)
    if CONCAT:
        has_unit = once + row < C.d
        unit_to += C.concat_bias_at + row
        has_side = once + row < 0
    else:
        g_layer = layer * C.layer_vector
        is_up = (row >= C.up_row) & (row < C.down_row)
        has_unit = once + ((row < C.out_row) | is_up).to(tl.int32) > 0
        unit_to += g_layer + tl.where(is_up, C.up_bias_at + row - C.up_row, row)
        is_out = (row == C.out_row) & (C.heads > 0)
        has_side = once + (is_out | (row == C.down_row)).to(tl.int32) > 0
        side_to += g_layer + tl.where(is_out, C.out_bias_at, C.down_bias_at)
    unit_total += tl.load(unit_to, mask=has_unit & adds, other=0.0)
    side_total += tl.load(side_to, mask=has_side & adds, other=0.0)
    tl.store(unit_to, unit_total, mask=has_unit)
    tl.store(side_to, side_total, mask=has_side)
