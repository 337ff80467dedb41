"""Backward of the layered plan: steps from last to first, each recomputed from its kept state.

The order of operations is that of ``lares_kernels/backward.py``; sums over rows are gathered by a fixed
number of programs and added in order, so two runs give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.call import RefineCall
from lares_kernels.parameters import parameter_shapes
from lares_kernels.triton.layered import FLAT_BLOCK, Layered, LayerTape, Site, states_of, unpack
from lares_kernels.triton.settings import multiprocessors

_PROGRAMS = 4  # of a row kernel that gathers sums, for each multiprocessor
_SUMS = 3  # vectors that such a kernel gathers
_NO_NORM, _OF_SUM, _OF_BRANCH = 0, 1, 2  # numbered as in kernels/layered_rows.py
# Of the keys' gradient in ieee products, which are taken from registers: what is loaded ahead waits
# there too, and with the usual stages Triton 3.9 spills kilobytes.
KEY_STAGES = {"ieee": {"num_stages": 1}}
_NO_BRANCH, _ATTENTION, _FEED_FORWARD = -1, 0, 1


class _Gradients:
    """Gradients of the parameters, float32, added to step by step.

    Args:
        run: the call.
    """

    def __init__(self, run: Layered) -> None:
        self.run = run
        device, d = run.device, run.config.d_model
        self.by_name = {
            name: torch.zeros(shape, dtype=torch.float32, device=device)
            for name, shape in parameter_shapes(run.config).items()
        }
        self.programs = min(_PROGRAMS * multiprocessors(device), -(-run.rows.n_rows // run.c.rows))
        sites = 2 * run.config.n_layers + 1  # two LayerNorms a layer, and the core's
        self.sums = torch.zeros(sites, self.programs, _SUMS, d, dtype=torch.float32, device=device)

    def site(self, layer: int, branch: int) -> Tensor:
        """Sums of a residual of a layer; of the adapter for layer -1."""
        return self.sums[-1 if layer < 0 else 2 * layer + branch]

    def product(
        self, name: str, layer: int | None, x: Tensor, g_y: Tensor, rows: slice = slice(None)
    ) -> None:
        """Add the weight's gradient of ``y = x W^T``, where that is ``rows`` of it."""
        whole = self.by_name[f"{name}_weight"]
        weight = (whole if layer is None else whole[layer])[rows]
        if x.dtype == torch.float32:
            weight.addmm_(g_y.mT, x)
        else:
            weight += torch.mm(g_y.mT, x)

    def bias(self, name: str, layer: int, g_y: Tensor) -> None:
        self.by_name[f"{name}_bias"][layer] += g_y.sum(0, dtype=torch.float32)

    def ordered(self) -> list[Tensor]:
        """All of them in the op's order, the gathered sums included."""
        config, found = self.run.config, self.by_name
        sums = self.sums.sum(1)  # (sites, _SUMS, d)
        layers = sums[:-1].unflatten(0, (config.n_layers, 2))
        for branch, norm in enumerate(("attn_norm", "ffn_norm")):
            found[f"{norm}_weight"] += layers[:, branch, 0]
            found[f"{norm}_bias"] += layers[:, branch, 1]
            found[("out_bias", "down_bias")[branch]] += layers[:, branch, 2]
        if config.is_recurrent:
            found["core_norm_weight"] += sums[-1, 0]
            found["core_norm_bias"] += sums[-1, 1]
        if config.adapter == "gate":
            gate = torch.sigmoid(self.run.vectors["gate"].to(torch.float32))
            found["gate"] += sums[-1, 2].sum() * gate * (1.0 - gate)
        elif config.adapter == "concat":
            found["concat_bias"] += sums[-1, 2]
        return list(found.values())


def layered_backward(
    call: RefineCall,
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    kept: Tensor,
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
    precision: str,
) -> list[Tensor]:
    """Backward of :class:`lares_kernels.backends.Backend`."""
    run = Layered(call, hidden, state, parameters, precision)
    rows, d = run.rows, call.config.d_model
    with run.on_device():
        grads = _Gradients(run)
        g_current = run.new(rows.n_rows, d).zero_()
        if g_state is not None:
            flat = g_state.reshape(-1, d)
            g_current.copy_(flat.index_select(0, rows.state_row))
        if not call.config.is_recurrent:
            if g_trajectory is not None:
                g_current[rows.newest] += g_trajectory[:, 0]
            tapes: list[LayerTape] = []
            run.layers(*run.hidden_rows(), 0, tapes)
            g_rows = _layers_backward(run, grads, tapes, g_current, 0)
            return [_of_hidden(run, g_rows).view(hidden.shape), *grads.ordered()]

        g_rows = torch.zeros_like(g_current)
        for step in range(call.max_steps, 0, -1):
            if g_trajectory is not None:
                g_current[rows.newest] += g_trajectory[:, step - 1]
            before = states_of(call, rows, kept, step)
            assert before is not None
            _step_backward(run, grads, before, g_current, g_rows, step)
        found = [_of_hidden(run, g_rows).view(hidden.shape), *grads.ordered()]
        return found if state is None else [*found, unpack(call, rows, g_current)]


def _step_backward(
    run: Layered, grads: _Gradients, state: Tensor, g_current: Tensor, g_rows: Tensor, step: int
) -> None:
    """Turn ``g_current`` from the gradient of ``s_t`` into that of ``s_{t-1}``; add to ``g_rows``.

    At the last step, where nobody wanted whole states, the gradients of all but newest rows are zero.

    A sequence that was done before this step hands its gradient on unchanged: its rows are not touched.
    """
    n_rows = run.running(step)
    g_current, g_rows = g_current[:n_rows], g_rows[:n_rows]
    tapes: list[LayerTape] = []
    run.layers(*run.step_input(state, n_rows, None), step, tapes)
    g_sum, g_input = _layers_gradient(run, grads, tapes, g_current, step)
    if run.c.concat:
        _concat_backward(run, grads, state, g_sum, g_input, g_current, g_rows)
        return
    from lares_kernels.triton.kernels.layered_rows import adapt_backward_kernel

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
    run: Layered,
    grads: _Gradients,
    state: Tensor,
    g_sum: Tensor,
    g_input: Tensor | None,
    g_current: Tensor,
    g_rows: Tensor,
) -> None:
    from lares_kernels.triton.kernels.layered_rows import split_kernel

    n_rows, d = g_current.shape
    both = run.joined(state, n_rows, None)
    g_adapted = run.new(n_rows, d, run.dtype)
    weight = run.vectors["core_norm_weight"]
    _residual_backward(
        *(run, grads, g_sum, g_input, run.concat_product(both), weight),
        g_total=None,
        g_branch=g_adapted,
        norm=_OF_SUM,
        site=run.site(-1, 0),
        branch=_NO_BRANCH,
    )
    grads.product("concat", None, both, g_adapted)
    g_both = torch.mm(g_adapted, run.products["concat_weight"])
    split_kernel[run.row_grid(n_rows)](g_both, g_current, g_rows, n_rows, C=run.compiled)


def _layers_backward(
    run: Layered, grads: _Gradients, tapes: list[LayerTape], g_y: Tensor, step: int
) -> Tensor:
    """Gradient of the first layer's input, float32."""
    g_sum, g_input = _layers_gradient(run, grads, tapes, g_y, step)
    return g_sum if g_input is None else g_sum + g_input


def _layers_gradient(
    run: Layered, grads: _Gradients, tapes: list[LayerTape], g_y: Tensor, step: int
) -> tuple[Tensor, Tensor | None]:
    """Gradient of the first layer's input as a float32 part, and one that products gave or None."""
    newest = run.newest_alone(step)
    g_y = run.shown(g_y)
    g_sum = g_y if newest is None else g_y.index_select(0, newest)
    g_input = None
    layers = range(run.config.n_layers)
    for layer, tape in zip(reversed(layers), reversed(tapes), strict=True):
        backward = _post_layer_backward if run.c.post else _pre_layer_backward
        if run.c.query:
            backward = _query_layer_backward
        g_sum, g_input = backward(run, grads, tape, g_sum, g_input, layer, step)
        g_sum, g_input = run.shown(g_sum), None if g_input is None else run.shown(g_input)
    return g_sum, g_input


def _post_layer_backward(
    run: Layered,
    grads: _Gradients,
    tape: LayerTape,
    g_sum: Tensor,
    g_input: Tensor | None,
    layer: int,
    step: int,
) -> tuple[Tensor, Tensor | None]:
    """Of ``y = LN(u + ffn(u)), u = LN(x + attention(x))``, ``y``'s gradient given in two parts."""
    for branch, total, norm in (
        (_FEED_FORWARD, tape.ffn_sum, "ffn_norm"),
        (_ATTENTION, tape.attn_sum, "attn_norm"),
    ):
        g_total = torch.empty_like(total)
        g_branch = run.new(len(total), run.config.d_model, run.dtype)
        _residual_backward(
            *(run, grads, g_sum, g_input, total, run.norm_of(norm, layer)[0]),
            g_total=g_total,
            g_branch=g_branch,
            norm=_OF_SUM,
            site=tape.site,
            branch=branch,
        )
        g_sum = g_total
        g_input = _branch_backward(run, grads, tape, g_branch, layer, step, branch)
    return _spread(tape, g_sum), g_input


def _pre_layer_backward(
    run: Layered,
    grads: _Gradients,
    tape: LayerTape,
    g_sum: Tensor,
    g_input: Tensor | None,
    layer: int,
    step: int,
) -> tuple[Tensor, Tensor | None]:
    """Of ``y = u + ffn(LN(u)), u = x + attention(LN(x))``; both gradients are whole."""
    assert g_input is None
    for branch, total, norm in (
        (_FEED_FORWARD, tape.attn_sum, "ffn_norm"),
        (_ATTENTION, tape.x, "attn_norm"),
    ):
        g_branch = run.new(len(g_sum), run.config.d_model, run.dtype)
        _residual_backward(
            *(run, grads, g_sum, None, g_sum, None),
            g_total=None,
            g_branch=g_branch,
            norm=_NO_NORM,
            site=tape.site,
            branch=branch,
        )
        g_normalised = _branch_backward(run, grads, tape, g_branch, layer, step, branch)
        if branch == _ATTENTION:
            g_sum = _spread(tape, g_sum)
        g_total = torch.empty_like(total)
        _residual_backward(
            *(run, grads, g_sum, g_normalised, total, run.norm_of(norm, layer)[0]),
            g_total=g_total,
            g_branch=None,
            norm=_OF_BRANCH,
            site=tape.site,
            branch=branch,
        )
        g_sum = g_total
    return g_sum, None


def _query_layer_backward(
    run: Layered,
    grads: _Gradients,
    tape: LayerTape,
    g_sum: Tensor,
    g_input: Tensor | None,
    layer: int,
    step: int,
) -> tuple[Tensor, Tensor | None]:
    """Of ``y = v + ffn(v), v = LN(q + attention(q; x)), q = LN(x)``; both gradients are whole."""
    assert g_input is None

    def of_branch(g: Tensor, branch: int) -> Tensor:
        g_branch = run.new(len(g), run.config.d_model, run.dtype)
        _residual_backward(
            *(run, grads, g, None, g, None),
            g_total=None,
            g_branch=g_branch,
            norm=_NO_NORM,
            site=tape.site,
            branch=branch,
        )
        return g_branch

    def through_norm(
        g: Tensor, g_more: Tensor, total: Tensor, name: str, norm: int, branch: int
    ) -> Tensor:
        g_total = torch.empty_like(total)
        _residual_backward(
            *(run, grads, g, g_more, total, run.norm_of(name, layer)[0]),
            g_total=g_total,
            g_branch=None,
            norm=norm,
            site=tape.site,
            branch=branch,
        )
        return g_total

    g_branch = of_branch(g_sum, _FEED_FORWARD)
    g_v = _feed_forward_backward(run, grads, tape, g_branch, layer)
    g_u = through_norm(g_sum, g_v, tape.attn_sum, "ffn_norm", _OF_SUM, _FEED_FORWARD)
    g_qkv = _qkv_gradient(run, grads, tape, of_branch(g_u, _ATTENTION), layer, step)
    d, weight = run.config.d_model, run.products["qkv_weight"][layer]
    assert tape.of_queries is not None
    grads.product("qkv", layer, tape.of_queries, g_qkv[:, :d], rows=slice(0, d))
    grads.product("qkv", layer, tape.qkv_in, g_qkv[:, d:], rows=slice(d, 3 * d))
    g_queries = torch.mm(g_qkv[:, :d], weight[:d]) + _spread(tape, g_u)
    g_others = torch.mm(g_qkv[:, d:], weight[d:])
    return through_norm(g_others, g_queries, tape.x, "attn_norm", _OF_BRANCH, _ATTENTION), None


def _spread(tape: LayerTape, g: Tensor) -> Tensor:
    """Gradients of the rows of ``tape.site`` among all that run, the others' zero."""
    if tape.newest is None:
        return g
    return g.new_zeros(len(tape.x), g.shape[1]).index_copy_(0, tape.newest, g)


def _residual_backward(
    run: Layered,
    grads: _Gradients,
    g_sum: Tensor,
    g_input: Tensor | None,
    total: Tensor,
    weight: Tensor | None,
    *,
    g_total: Tensor | None,
    g_branch: Tensor | None,
    norm: int,
    site: Site,
    branch: int,
) -> None:
    """Launch :func:`residual_backward_kernel`."""
    from lares_kernels.triton.kernels.layered_rows import residual_backward_kernel

    residual_backward_kernel[(grads.programs,)](
        g_sum,
        g_input,
        total,
        weight,
        grads.site(site.layer, branch),
        g_total,
        g_branch,
        site.stream,
        site.position,
        len(total),
        site.layer,
        site.step,
        *run.seed,
        NORM=norm,
        BRANCH=branch,
        C=run.compiled,
    )


def _branch_backward(
    run: Layered,
    grads: _Gradients,
    tape: LayerTape,
    g_branch: Tensor,
    layer: int,
    step: int,
    branch: int,
) -> Tensor:
    """Gradient of what a branch's first product read, in the products' type."""
    if branch == _ATTENTION:
        return _attention_backward(run, grads, tape, g_branch, layer, step)
    return _feed_forward_backward(run, grads, tape, g_branch, layer)


def _feed_forward_backward(
    run: Layered, grads: _Gradients, tape: LayerTape, g_branch: Tensor, layer: int
) -> Tensor:
    from lares_kernels.triton.kernels.layered_rows import activate_backward_kernel

    grads.product("down", layer, tape.activated, g_branch)
    g_inner = torch.mm(g_branch, run.products["down_weight"][layer])
    size = g_inner.numel()
    activate_backward_kernel[(-(-size // FLAT_BLOCK),)](
        tape.inner,
        g_inner,
        g_inner,
        size,
        *run.inner_draws(tape.site),
        BLOCK=FLAT_BLOCK,
        C=run.compiled,
    )
    grads.product("up", layer, tape.up_in, g_inner)
    grads.bias("up", layer, g_inner)
    return torch.mm(g_inner, run.products["up_weight"][layer])


def _attention_backward(
    run: Layered, grads: _Gradients, tape: LayerTape, g_branch: Tensor, layer: int, step: int
) -> Tensor:
    g_qkv = _qkv_gradient(run, grads, tape, g_branch, layer, step)
    grads.product("qkv", layer, tape.qkv_in, g_qkv)
    return torch.mm(g_qkv, run.products["qkv_weight"][layer])


def _qkv_gradient(
    run: Layered, grads: _Gradients, tape: LayerTape, g_branch: Tensor, layer: int, step: int
) -> Tensor:
    """Gradient (n, 3 d) of queries, keys and values."""
    from lares_kernels.triton.kernels.layered_attention import (
        key_gradient_kernel,
        query_gradient_kernel,
    )

    context = tape.context if tape.newest is None else tape.context.index_select(0, tape.newest)
    grads.product("out", layer, context, g_branch)
    g_context = _spread(tape, torch.mm(g_branch, run.products["out_weight"][layer]))
    g_qkv, delta = torch.empty_like(tape.qkv), torch.empty_like(tape.lse)
    drawn = run.call.drawn_step(step)
    shared = (run.rows.starts, run.rows.streams, len(g_qkv), layer, drawn, *run.seed)
    blocks = run.blocks[1]
    grid, options = run.attention_grid(blocks, step), run.attention_options(blocks)
    query_gradient_kernel[grid](
        tape.qkv, tape.context, g_context, tape.lse, delta, g_qkv, *shared, **options
    )
    options |= KEY_STAGES.get(run.c.precision, {})
    key_gradient_kernel[grid](tape.qkv, g_context, tape.lse, delta, g_qkv, *shared, **options)
    grads.bias("qkv", layer, g_qkv)
    return g_qkv


def _of_hidden(run: Layered, g_rows: Tensor) -> Tensor:
    """Gradient of ``hidden`` (rows of the caller, d): rollouts added up in order, padding zero."""
    rollouts, d = run.call.rollouts, run.config.d_model
    place = run.rows.hidden_row.to(torch.int64) * rollouts + run.rows.rollout
    spread = g_rows.new_zeros(run.call.n_hidden_rows * rollouts, d).index_copy_(0, place, g_rows)
    return spread if rollouts == 1 else spread.view(-1, rollouts, d).sum(1)
