"""Run the layered plan backward: steps from last to first, each recomputed from its saved state.

The order of operations is that of ``reference/backward.py``. ``window_layer.py`` has the layers
that mix whole windows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lares_kernels.gpu.scratch import unfilled_like, zeroed
from lares_kernels.spec.call import GivenBackward, RefineCall
from lares_kernels.spec.choices import Norm
from lares_kernels.triton.layered.call import Layered
from lares_kernels.triton.layered.forward import LayerTape, layers, states_of, unpack
from lares_kernels.triton.layered.gradients import (
    Gradients,
    TwoParts,
    attention_backward,
    branch_gradient,
    feed_forward_backward,
    qkv_gradient,
    residual_backward,
    spread,
    through_norm,
    through_sum,
)
from lares_kernels.triton.layered.kernels.branches import (
    FEED_FORWARD,
    MIXING,
    NO_BRANCH,
    OF_BRANCH,
    OF_SUM,
)
from lares_kernels.triton.layered.window_layer import window_layer_backward


def layered_backward(call: RefineCall, given: GivenBackward, precision: str) -> list[Tensor]:
    """Run backward of :class:`lares_kernels.registry.backends.Backend`."""
    run = Layered(call, given, precision)
    hidden, g_trajectory, g_state = given.hidden, given.g_trajectory, given.g_state
    rows, d = run.rows, call.config.d_model
    with run.on_device():
        grads = Gradients(run)
        g_current = run.new(rows.n_rows, d).zero_()
        if g_state is not None:
            flat = g_state.reshape(-1, d)
            g_current.copy_(flat.index_select(0, rows.state_row))
        if not call.config.is_recurrent:
            if g_trajectory is not None:
                g_current[rows.newest] += g_trajectory[:, 0]
            tapes: list[LayerTape] = []
            layers(run, *run.hidden_rows(), 0, tapes)
            g_rows = _layers_backward(run, grads, tapes, g_current, 0)
            return [_hidden_gradient(run, g_rows).view(hidden.shape), *grads.ordered()]

        g_rows = unfilled_like(g_current).zero_()
        for step in range(call.options.max_steps, 0, -1):
            if g_trajectory is not None:
                g_current[rows.newest] += g_trajectory[:, step - 1]
            before = states_of(call, rows, given.kept, step)
            assert before is not None
            _step_backward(run, grads, before, g_current, g_rows, step)
        found = [_hidden_gradient(run, g_rows).view(hidden.shape), *grads.ordered()]
        return found if given.state is None else [*found, unpack(call, rows, g_current)]


def _step_backward(
    run: Layered, grads: Gradients, state: Tensor, g_current: Tensor, g_rows: Tensor, step: int
) -> None:
    """Turn ``g_current`` from the gradient of ``s_t`` into that of ``s_{t-1}``; add to ``g_rows``.

    At the last step, unless whole states were requested, only newest rows have a gradient.

    A sequence that was done before this step hands its gradient on unchanged: its rows are not touched.
    """
    n_rows = run.running(step)
    g_current, g_rows = g_current[:n_rows], g_rows[:n_rows]
    tapes: list[LayerTape] = []
    layers(run, *run.step_input(state, n_rows, None), step, tapes)
    g_sum, g_input = _layers_gradient(run, grads, tapes, g_current, step)
    if run.c.concat:
        _concat_backward(run, grads, state, (g_sum, g_input), g_current, g_rows)
        return
    from lares_kernels.triton.layered.kernels.rows import adapt_backward_kernel

    adapt_backward_kernel[(grads.programs,)](
        g_sum,
        g_input,
        state,
        run.hidden,
        run.rows.hidden_row,
        run.vectors.get("gate"),
        run.vectors["core_norm_weight"],
        grads.site(-1, 0),
        g_current,
        g_rows,
        n_rows,
        C=run.compiled,
    )


def _concat_backward(
    run: Layered, grads: Gradients, state: Tensor, g: TwoParts, g_current: Tensor, g_rows: Tensor
) -> None:
    from lares_kernels.triton.layered.kernels.rows import split_kernel

    n_rows, d = g_current.shape
    both = run.joined(state, n_rows, None)
    g_adapted = run.new(n_rows, d, run.dtype)
    weight = run.vectors["core_norm_weight"]
    total, site = run.concat_product(both), run.site(-1, 0)
    residual_backward(grads, site, g, total, weight, None, g_adapted, OF_SUM, NO_BRANCH)
    grads.product("concat", None, both, g_adapted)
    g_both = torch.mm(g_adapted, run.products["concat_weight"])
    split_kernel[run.row_grid(n_rows)](g_both, g_current, g_rows, n_rows, C=run.compiled)


def _layers_backward(
    run: Layered, grads: Gradients, tapes: list[LayerTape], g_y: Tensor, step: int
) -> Tensor:
    """Return the gradient of the first layer's input, float32."""
    g_sum, g_input = _layers_gradient(run, grads, tapes, g_y, step)
    return g_sum if g_input is None else g_sum + g_input


def _layers_gradient(
    run: Layered, grads: Gradients, tapes: list[LayerTape], g_y: Tensor, step: int
) -> tuple[Tensor, Tensor | None]:
    """Return the first layer's input gradient as two terms: float32, and the products' or None."""
    newest = run.newest_alone(step)
    g_y = run.mask_padding(g_y)
    g_sum = g_y if newest is None else g_y.index_select(0, newest)
    g_input = None
    backward = _LAYER_BACKWARD[run.c.norm]
    if run.config.mixes_window:
        backward = window_layer_backward
    for tape in reversed(tapes):
        g_sum, g_input = backward(run, grads, tape, g_sum, g_input)
        g_sum, g_input = (
            run.mask_padding(g_sum),
            None if g_input is None else run.mask_padding(g_input),
        )
    return g_sum, g_input


def _post_layer_backward(
    run: Layered, grads: Gradients, tape: LayerTape, g_sum: Tensor, g_input: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Compute a post-norm layer's backward, ``y = LN(u + ffn(u)), u = LN(x + attention(x))``.
    The gradient of ``y`` is passed as two terms to be added."""
    site = tape.site
    for branch, total, norm in (
        (FEED_FORWARD, tape.ffn_sum, "ffn_norm"),
        (MIXING, tape.attn_sum, "attn_norm"),
    ):
        g_sum, g_branch = through_sum(grads, site, (g_sum, g_input), total, norm, branch)
        g_input = _branch_backward(run, grads, tape, g_branch, branch)
    return spread(g_sum, site.newest, len(tape.x)), g_input


def _pre_layer_backward(
    run: Layered, grads: Gradients, tape: LayerTape, g_sum: Tensor, g_input: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Compute a pre-norm layer's backward, ``y = u + ffn(LN(u)), u = x + attention(LN(x))``.
    Both gradients are single terms."""
    assert g_input is None
    site = tape.site
    for branch, total, norm in (
        (FEED_FORWARD, tape.attn_sum, "ffn_norm"),
        (MIXING, tape.x, "attn_norm"),
    ):
        g_branch = branch_gradient(grads, site, g_sum, branch)
        g_normalised = _branch_backward(run, grads, tape, g_branch, branch)
        if branch == MIXING:
            g_sum = spread(g_sum, site.newest, len(tape.x))
        g = (g_sum, g_normalised)
        g_sum = through_norm(grads, site, g, total, norm, branch, OF_BRANCH)
    return g_sum, None


def _query_layer_backward(
    run: Layered, grads: Gradients, tape: LayerTape, g_sum: Tensor, g_input: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Compute a query-norm layer's backward, ``y = v + ffn(v), v = LN(q + attention(q; x)), q =
    LN(x)``. Both gradients are single terms."""
    assert g_input is None
    site, attention = tape.site, tape.attention
    layer = site.layer
    g_branch = branch_gradient(grads, site, g_sum, FEED_FORWARD)
    g_v = feed_forward_backward(run, grads, tape.feed_forward, site, g_branch)
    g = (g_sum, g_v)
    g_u = through_norm(grads, site, g, tape.attn_sum, "ffn_norm", FEED_FORWARD, OF_SUM)
    g_branch = branch_gradient(grads, site, g_u, MIXING)
    g_qkv = qkv_gradient(run, grads, attention, site, g_branch)
    d, weight = run.config.d_model, run.products["qkv_weight"][layer]
    assert attention.query_input is not None
    grads.product("qkv", layer, attention.query_input, g_qkv[:, :d], rows=slice(0, d))
    grads.product("qkv", layer, attention.source, g_qkv[:, d:], rows=slice(d, 3 * d))
    g_queries = torch.mm(g_qkv[:, :d], weight[:d]) + spread(g_u, site.newest, len(tape.x))
    g = (torch.mm(g_qkv[:, d:], weight[d:]), g_queries)
    return through_norm(grads, site, g, tape.x, "attn_norm", MIXING, OF_BRANCH), None


_LAYER_BACKWARD: dict[int, Any] = {
    Norm.POST: _post_layer_backward,
    Norm.PRE: _pre_layer_backward,
    Norm.QUERY: _query_layer_backward,
}


def _branch_backward(
    run: Layered, grads: Gradients, tape: LayerTape, g_branch: Tensor, branch: int
) -> Tensor:
    """Return the gradient of what a branch's first product read, in the products' type."""
    if branch == MIXING:
        return attention_backward(run, grads, tape.attention, tape.site, g_branch)
    return feed_forward_backward(run, grads, tape.feed_forward, tape.site, g_branch)


def _hidden_gradient(run: Layered, g_rows: Tensor) -> Tensor:
    """Return the gradient of ``hidden`` (rows of the caller, d): rollouts added up in order,
    zero at padding."""
    rollouts, d = run.call.options.rollouts, run.config.d_model
    place = run.rows.hidden_row.to(torch.int64) * rollouts + run.rows.rollout
    spread = zeroed(
        run.call.n_hidden_rows * rollouts, d, dtype=g_rows.dtype, device=g_rows.device
    ).index_copy_(0, place, g_rows)
    return spread if rollouts == 1 else spread.view(-1, rollouts, d).sum(1)
