"""Compute rows of the layered plan: adapter, residual, dropout, LayerNorm, activation, and back.

Every kernel takes blocks of ``C.rows`` whole rows of ``C.width`` columns, packed; sums and LayerNorms
are float32, products' operands are in the products' type. An output's pointer may be None: it is then
not written.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import draws, elementwise
from lares_kernels.triton.kernels.rows import first_state, load_rows, store_rows
from lares_kernels.triton.layered.kernels import branches

NO_BRANCH: tl.constexpr = tl.constexpr(branches.NO_BRANCH)
FEED_FORWARD: tl.constexpr = tl.constexpr(branches.FEED_FORWARD)
BANDS: tl.constexpr = tl.constexpr(branches.BANDS)

NO_NORM: tl.constexpr = tl.constexpr(branches.NO_NORM)
OF_SUM: tl.constexpr = tl.constexpr(branches.OF_SUM)
OF_BRANCH: tl.constexpr = tl.constexpr(branches.OF_BRANCH)

# Gradients of vectors that a program gathers: LayerNorm's two, and a bias or the gate.
SUMS: tl.constexpr = tl.constexpr(3)


@triton.jit
def columns(base, C: tl.constexpr):
    """Load a parameter of a row's width, (1, d), with zeros past the real columns."""
    column = tl.arange(0, C.d)
    return tl.load(base + column, mask=column < C.width, other=0.0).to(tl.float32)[None, :]


@triton.jit
def kept_columns(stream, position, layer, step, seed, BRANCH: tl.constexpr, C: tl.constexpr):
    """Decide residual dropout of a branch, (rows, d) bool."""
    # Bands have a site of their own; the other two branches follow each other in one.
    first: tl.constexpr = 0 if BRANCH == BANDS else BRANCH
    site = draws.site_word(
        draws.SITE_BANDS if BRANCH == BANDS else draws.SITE_RESIDUAL, layer, step
    )
    if C.d <= 64:
        low0, high0, low1, high1 = draws.keep_words(
            stream, position, site, 0, seed, C.threshold, C.planes
        )
        if first == 0:
            return draws.kept(low0, high0, tl.arange(0, C.d)[None, :])
        else:
            return draws.kept(low1, high1, tl.arange(0, C.d)[None, :])
    else:
        rows = tl.zeros((C.rows, C.d // 64), tl.int32)
        block = first * ((C.width + 63) // 64) + tl.arange(0, C.d // 64)[None, :] + rows
        low0, high0, low1, high1 = draws.keep_words(
            stream[:, None] + rows,
            position[:, None] + rows,
            site,
            block >> 1,
            seed,
            C.threshold,
            C.planes,
        )
        odd = (block & 1) != 0
        words = tl.join(tl.where(odd, low1, low0), tl.where(odd, high1, high0))
        bits = words[:, :, :, None] >> tl.arange(0, 32)[None, None, None, :]
        return tl.reshape(bits & 1, (C.rows, C.d)) != 0


@triton.jit
def dropped(
    x, stream, position, row, mask, layer, step, seed, BRANCH: tl.constexpr, C: tl.constexpr
):
    """Apply residual dropout to a branch or its gradient as a factor of zero, so that a dropped
    NaN stays NaN."""
    if C.planes > 0:
        if BRANCH != NO_BRANCH and not (C.spares_attention and BRANCH != FEED_FORWARD):
            streams = tl.load(stream + row, mask=mask, other=0)
            positions = tl.load(position + row, mask=mask, other=0)
            kept = kept_columns(streams, positions, layer, step, seed, BRANCH, C)
            x *= tl.where(kept, C.keep_scale, 0.0)
    return x


@triton.jit(do_not_specialize=["n_rows", "seed"])
def first_state_kernel(
    state,
    state_row,
    stream,
    position,
    out,
    scale,
    n_rows,
    seed,
    DRAWN: tl.constexpr,
    C: tl.constexpr,
):
    """Write ``s_0`` of packed rows to ``out`` (N, width): the caller's, drawn, or zero."""
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    mask = row < n_rows
    there = tl.load(state_row + row, mask=mask, other=-1)
    streams = tl.load(stream + row, mask=mask, other=0)
    positions = tl.load(position + row, mask=mask, other=0)
    value = first_state(state, there, streams, positions, scale, seed, DRAWN, C)
    store_rows(out, row, mask, value, C)


@triton.jit
def adapted(state, hidden, gate, C: tl.constexpr):
    """Combine state and ``H`` by an adapter without products: ``add`` or ``gate``."""
    if C.gated:
        g = tl.sigmoid(tl.load(gate).to(tl.float32))
        return g * state + (1.0 - g) * hidden
    elif C.adds:
        return (state + hidden) * 0.5
    else:
        tl.static_assert(False, "no kernel has this adapter")


@triton.jit
def states_before(state, hidden_row, kept, n_rows, C: tl.constexpr):
    """Return (rows, which are real, rows of ``hidden``, states) of this program; fill ``kept``."""
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    mask = row < n_rows
    there = tl.load(hidden_row + row, mask=mask, other=0)
    before = load_rows(state, row, mask, C)
    if kept is not None:
        store_rows(kept, row, mask, before, C)
    return row, mask, there, before


@triton.jit(do_not_specialize=["n_rows"])
def adapt_kernel(
    state, hidden, hidden_row, gate, weight, bias, kept, out, out_product, n_rows, C: tl.constexpr
):
    """Compute ``LayerNorm_core(adapter(s, H))`` for adapters ``add`` and ``gate``.

    Args:
        state: (N, width) float32, ``s``.
        hidden: ``H`` in the caller's rows and type; ``hidden_row`` (N,) int32 selects them.
        gate: the scalar parameter, or None.
        weight, bias: of LayerNorm.
        kept: (N, width) float32 out, a copy of ``s`` for backward.
        out, out_product: (N, width) out, float32 and in the products' type.
    """
    row, mask, there, before = states_before(state, hidden_row, kept, n_rows, C)
    value = adapted(before, load_rows(hidden, there, mask, C), gate, C)
    value, _ = elementwise.normalise(value, C.eps, C.d, C.width)
    value = value * columns(weight, C) + columns(bias, C)
    store_rows(out, row, mask, value, C)
    if out_product is not None:
        store_rows(out_product, row, mask, value, C)


@triton.jit(do_not_specialize=["n_rows"])
def join_kernel(state, hidden, hidden_row, kept, both, n_rows, C: tl.constexpr):
    """Write ``[s ; H]`` (N, 2 width) in the products' type, for adapter ``concat``."""
    row, mask, there, before = states_before(state, hidden_row, kept, n_rows, C)
    store_rows(both, 2 * row, mask, before, C)
    store_rows(both, 2 * row + 1, mask, load_rows(hidden, there, mask, C), C)


@triton.jit(do_not_specialize=["n_rows", "layer", "step", "seed"])
def residual_kernel(
    x,
    branch,
    weight,
    bias,
    blended,
    total,
    out,
    out_product,
    stream,
    position,
    n_rows,
    layer,
    step,
    seed,
    BRANCH: tl.constexpr,
    SHARE: tl.constexpr,
    C: tl.constexpr,
):
    """Compute ``x + Dropout(branch)``, and its LayerNorm where there is a ``weight``.

    Args:
        x: (N, width) of any type; branch: the same, or None for ``NO_BRANCH``.
        weight, bias: of LayerNorm, or None.
        blended: (N, width) float32, of which ``SHARE`` is in the result and ``1 - SHARE`` of the
            LayerNorm; or None.
        total: (N, width) float32 out, the sum.
        out, out_product: (N, width) out, its LayerNorm (or the sum itself), float32 and in the
            products' type.
        stream, position: (N,) int32, address of each row's draws.
    """
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    mask = row < n_rows
    value = load_rows(x, row, mask, C)
    if branch is not None:
        added = load_rows(branch, row, mask, C)
        value += dropped(added, stream, position, row, mask, layer, step, seed, BRANCH, C)
    if total is not None:
        store_rows(total, row, mask, value, C)
    if weight is not None:
        value, _ = elementwise.normalise(value, C.eps, C.d, C.width)
        value = value * columns(weight, C) + columns(bias, C)
    if blended is not None:
        value = SHARE * load_rows(blended, row, mask, C) + (1.0 - SHARE) * value
    if out is not None:
        store_rows(out, row, mask, value, C)
    if out_product is not None:
        store_rows(out_product, row, mask, value, C)


@triton.jit
def add_sums(sums, which: tl.constexpr, found, C: tl.constexpr):
    """Add the column sums of ``found`` (rows, d) to this program's own."""
    column = tl.arange(0, C.d)
    at = sums + (tl.program_id(0) * SUMS + which) * C.width + column
    real = column < C.width
    tl.store(at, tl.load(at, mask=real) + tl.sum(found, 0), mask=real)


@triton.jit(do_not_specialize=["n_rows", "layer", "step", "seed"])
def residual_backward_kernel(
    g_sum,
    g_branch_input,
    total,
    weight,
    sums,
    g_total,
    g_branch,
    stream,
    position,
    n_rows,
    layer,
    step,
    seed,
    NORM: tl.constexpr,
    BRANCH: tl.constexpr,
    SHARE: tl.constexpr,
    C: tl.constexpr,
):
    """Compute the gradient of a residual sum from those of what read it; programs take blocks in
    turn.

    Args:
        g_sum: (N, width) of any type, gradient of the sum, or with ``OF_SUM`` of what has ``SHARE`` of
            its LayerNorm.
        g_branch_input: (N, width) or None, result of the next branch's products: added to ``g_sum``, or
            with ``OF_BRANCH`` the gradient of the sum's LayerNorm.
        total: (N, width), the sum.
        weight: of LayerNorm.
        sums: (programs, SUMS, width) float32, added to: gradients of LayerNorm's weight and bias, and
            of the branch's bias.
        g_total: (N, width) float32 out, or None.
        g_branch: (N, width) out of any type, gradient of the branch before dropout, or None.
    """
    g_weight = tl.zeros((C.rows, C.d), tl.float32)
    g_norm_bias = tl.zeros((C.rows, C.d), tl.float32)
    g_bias = tl.zeros((C.rows, C.d), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(n_rows, C.rows), tl.num_programs(0)):
        row = block * C.rows + tl.arange(0, C.rows)
        mask = row < n_rows
        g = load_rows(g_sum, row, mask, C)
        if NORM == NO_NORM:
            if g_branch_input is not None:
                g += load_rows(g_branch_input, row, mask, C)
        else:
            if NORM == OF_BRANCH:
                g_y = load_rows(g_branch_input, row, mask, C)
            else:
                tl.static_assert(NORM == OF_SUM, "no kernel has a LayerNorm in this place")
                g_y = g
                if g_branch_input is not None:
                    g_y += load_rows(g_branch_input, row, mask, C)
            value = load_rows(total, row, mask, C)
            normalised, inverse_std = elementwise.normalise(value, C.eps, C.d, C.width)
            g_weight += g_y * normalised
            g_norm_bias += g_y
            scaled = g_y * (columns(weight, C) * SHARE)
            back = elementwise.normalise_backward(scaled, normalised, inverse_std, C.width)
            if NORM == OF_BRANCH:
                g += back
            else:
                g = back
        if g_total is not None:
            store_rows(g_total, row, mask, g, C)
        if g_branch is not None:
            g = dropped(g, stream, position, row, mask, layer, step, seed, BRANCH, C)
            g = tl.where(mask[:, None], g, 0.0)
            g_bias += g
            store_rows(g_branch, row, mask, g, C)
    if NORM != NO_NORM:
        add_sums(sums, 0, g_weight * SHARE, C)
        add_sums(sums, 1, g_norm_bias * SHARE, C)
    if g_branch is not None:
        add_sums(sums, 2, g_bias, C)


@triton.jit(do_not_specialize=["n_rows"])
def adapt_backward_kernel(
    g_sum,
    g_branch_input,
    state,
    hidden,
    hidden_row,
    gate,
    weight,
    sums,
    g_state,
    g_hidden,
    n_rows,
    C: tl.constexpr,
):
    """Compute gradients of ``s`` and ``H`` for adapters ``add`` and ``gate``.

    Args:
        g_sum, g_branch_input: (N, width), their sum is the gradient of ``LayerNorm_core``'s result;
            the second may be None.
        state, hidden, hidden_row, gate, weight: as in :func:`adapt_kernel`.
        sums: (programs, SUMS, width) float32, added to: gradients of LayerNorm's weight and bias, and
            (their first column) of ``sigmoid(gate)``.
        g_state: (N, width) float32 out; it may be ``g_sum`` itself.
        g_hidden: (N, width) float32, added to.
    """
    g_weight = tl.zeros((C.rows, C.d), tl.float32)
    g_bias = tl.zeros((C.rows, C.d), tl.float32)
    g_gate = tl.zeros((C.rows,), tl.float32)
    share = 0.5
    if C.gated:
        share = tl.sigmoid(tl.load(gate).to(tl.float32))
    else:
        tl.static_assert(C.adds, "no kernel has this adapter")
    for block in range(tl.program_id(0), tl.cdiv(n_rows, C.rows), tl.num_programs(0)):
        row = block * C.rows + tl.arange(0, C.rows)
        mask = row < n_rows
        g_y = load_rows(g_sum, row, mask, C)
        if g_branch_input is not None:
            g_y += load_rows(g_branch_input, row, mask, C)
        there = tl.load(hidden_row + row, mask=mask, other=0)
        before = load_rows(state, row, mask, C)
        other = load_rows(hidden, there, mask, C)
        value = adapted(before, other, gate, C)
        normalised, inverse_std = elementwise.normalise(value, C.eps, C.d, C.width)
        g_weight += g_y * normalised
        g_bias += g_y
        scaled = g_y * columns(weight, C)
        g = elementwise.normalise_backward(scaled, normalised, inverse_std, C.width)
        if C.gated:
            g_gate += tl.sum(g * (before - other), 1)
        store_rows(g_state, row, mask, g * share, C)
        store_rows(g_hidden, row, mask, load_rows(g_hidden, row, mask, C) + g * (1.0 - share), C)
    add_sums(sums, 0, g_weight, C)
    add_sums(sums, 1, g_bias, C)
    if C.gated:
        at = sums + (tl.program_id(0) * SUMS + 2) * C.width
        tl.store(at, tl.load(at) + tl.sum(g_gate, 0))


@triton.jit(do_not_specialize=["n_rows"])
def split_kernel(g_both, g_state, g_hidden, n_rows, C: tl.constexpr):
    """Split the gradient of :func:`join_kernel`: write ``g_state``, add to ``g_hidden``."""
    row = tl.program_id(0) * C.rows + tl.arange(0, C.rows)
    mask = row < n_rows
    store_rows(g_state, row, mask, load_rows(g_both, 2 * row, mask, C), C)
    g = load_rows(g_hidden, row, mask, C) + load_rows(g_both, 2 * row + 1, mask, C)
    store_rows(g_hidden, row, mask, g, C)


@triton.jit
def inner_dropped(x, at, size, stream, position, width, layer, step, seed, C: tl.constexpr):
    """Apply dropout inside the feed-forward to numbers ``at`` (BLOCK,) of rows of ``width``."""
    if C.inner_planes > 0:
        row = at // width
        column = (at - row * width).to(tl.int32)
        streams = tl.load(stream + row, mask=at < size, other=0)
        positions = tl.load(position + row, mask=at < size, other=0)
        site = draws.site_word(draws.SITE_INNER, layer, step)
        low, high = draws.block_words(
            streams, positions, site, column // 64, seed, C.inner_threshold, C.inner_planes
        )
        word = tl.where(column % 64 < 32, low, high)
        return x * tl.where(((word >> (column & 31)) & 1) != 0, C.inner_keep_scale, 0.0)
    else:
        return x


@triton.jit(do_not_specialize=["width", "layer", "step", "seed"])
def activate_kernel(
    inner,
    g_out,
    result,
    size,
    stream,
    position,
    width,
    layer,
    step,
    seed,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
):
    """Compute the activation, element by element, dropped; with ``g_out``, its argument's gradient.

    Args:
        inner: (size,) of any type, the argument.
        g_out: (size,) of any type, gradient of the result; or None.
        result: (size,) out of any type; it may be ``g_out`` itself.
        stream, position: (n,) int32, of the rows of ``width`` numbers.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(inner + at, mask=at < size, other=0.0).to(tl.float32)
    if g_out is None:
        x = elementwise.activate(x, C.activation, C.exact)
        x = inner_dropped(x, at, size, stream, position, width, layer, step, seed, C)
        tl.store(result + at, x, mask=at < size)
    else:
        g = tl.load(g_out + at, mask=at < size, other=0.0).to(tl.float32)
        _, slope = elementwise.activate_with_slope(x, C.activation, C.exact)
        slope = inner_dropped(slope, at, size, stream, position, width, layer, step, seed, C)
        tl.store(result + at, g * slope, mask=at < size)
