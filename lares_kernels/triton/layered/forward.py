"""Run the layered plan: calls whose tile does not fit a program, layer by layer and step by step.

Large products are PyTorch's (cuBLAS, hipBLASLt); attention, mixing of windows, adapter, residual,
dropout, LayerNorm and activation are Triton kernels. Only mixers of windows see padding: other rows are
packed (``packed_rows.py``), and attention takes sequences of any length. One state per step is saved;
``backward.py`` recomputes the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.gpu.scratch import unfilled, zeroed
from lares_kernels.spec.call import Given, RefineCall
from lares_kernels.triton.layered.call import AttentionTape, FeedForwardTape, Layered, Site
from lares_kernels.triton.layered.kernels.branches import FEED_FORWARD, MIXING
from lares_kernels.triton.layered.packed_rows import PackedRows, hand_over
from lares_kernels.triton.layered.window_layer import WindowTape, window_layer


def layered_text(call: RefineCall) -> str:
    """Describe the plan in a sentence."""
    return (
        f"Triton kernels layer by layer, products by PyTorch in {call.product_dtype}, "
        f"{call.n_rows} packed tokens of {call.n_sequences} sequences, one state a step kept"
    )


class LayerTape(NamedTuple):
    """Save what an attention layer's backward needs.

    ``*_sum`` are the residual sums, float32. From ``attn_sum`` on, the rows are those of ``site``,
    in a sequence's last layer only its newest.
    """

    site: Site
    x: Tensor
    attention: AttentionTape
    attn_sum: Tensor
    feed_forward: FeedForwardTape
    ffn_sum: Tensor


def attention_layer(
    run: Layered, x: Tensor, x_in: Tensor, site: Site, taped: bool
) -> tuple[Tensor, Tensor, LayerTape | None]:
    """Compute one layer on ``x`` (n, d) float32, whose rounded copy for products is ``x_in``.

    Returns:
        The layer's output, float32 and for products (with pre-norm nothing reads the second), and its
        tape if ``taped``.
    """
    d, layer, newest = run.config.d_model, site.layer, site.newest
    post, query = run.c.post, run.c.query
    source, query_input, before = x_in, None, x
    if not post:
        normalised, rows_in = run.normalised(x, "attn_norm", layer)
        if query:
            assert normalised is not None
            before, query_input = normalised, rows_in
        else:
            assert run.c.pre, run.config.norm
            source = rows_in
    branch, attention = run.attention(source, query_input, site, taped)
    if newest is not None:
        before = before.index_select(0, newest)
    n_rows = len(before)

    # Post-norm and query-norm go on from the sum's LayerNorm, pre-norm from the sum.
    from_norm = post or query
    attn_sum = run.new(n_rows, d) if taped or not from_norm else None
    rounded = run.for_products(n_rows)
    u = run.new(n_rows, d) if from_norm or rounded is None else None
    norm = run.norm_of("attn_norm" if post else "ffn_norm", layer)
    run.residual(before, branch, norm, attn_sum, u, rounded, site, MIXING)
    up_in = u if rounded is None else rounded
    residual = u if from_norm else attn_sum
    assert up_in is not None
    assert residual is not None

    branch, feed_forward = run.feed_forward(up_in, site, taped)
    out, out_in = run.new(n_rows, d), run.for_products(n_rows) if from_norm else None
    ffn_sum = run.new(n_rows, d) if taped and post else None
    norm_after = run.norm_of("ffn_norm", layer) if post else None
    run.residual(residual, branch, norm_after, ffn_sum, out, out_in, site, FEED_FORWARD)
    tape = None
    if attention is not None:
        assert attn_sum is not None
        assert feed_forward is not None
        total = out if ffn_sum is None else ffn_sum
        tape = LayerTape(site, x, attention, attn_sum, feed_forward, total)
    if newest is None:  # newest rows are never padding
        out, out_in = run.mask_padding(out), None if out_in is None else run.mask_padding(out_in)
    return out, out if out_in is None else out_in, tape


def layers(
    run: Layered,
    x: Tensor,
    x_in: Tensor,
    step: int,
    tapes: list[LayerTape] | list[WindowTape] | None = None,
) -> Tensor:
    """Apply all layers of a step; ``tapes`` gets one entry each.

    At the last step, unless whole states are requested, only the newest rows are returned:
    :meth:`Layered.newest_alone`.
    """
    last = run.config.n_layers - 1
    one: Any = window_layer if run.config.mixes_window else attention_layer
    for layer in range(run.config.n_layers):
        newest = run.newest_alone(step) if layer == last else None
        x, x_in, tape = one(run, x, x_in, run.site(layer, step, newest), tapes is not None)
        if tapes is not None:
            tapes.append(tape)
    return x


def layered_forward(
    call: RefineCall, given: Given, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Run forward of :class:`lares_kernels.registry.backends.Backend`."""
    run = Layered(call, given, precision)
    rows, d = run.rows, call.config.d_model
    kept = torch.empty(call.kept_size, dtype=torch.float32, device=run.device)
    trajectory = unfilled(
        call.n_sequences, call.options.max_steps, d, dtype=torch.float32, device=run.device
    )
    with run.on_device():
        if not call.config.is_recurrent:
            current = run.written(None, layers(run, *run.hidden_rows(), 0), 0)
            trajectory[:, 0] = current[rows.newest]
        else:
            current = run.first_state()
            for step in range(1, call.options.max_steps + 1):
                place = states_of(call, rows, kept, step)
                start = run.step_input(current, run.running(step), place)
                current = run.written(current, layers(run, *start, step), step)
                trajectory[:, step - 1] = current[rows.newest]
        final = unpack(call, rows, current) if call.options.wants_state else current.new_empty(0)
    hand_over(call, rows)
    return trajectory, final, kept


def states_of(call: RefineCall, rows: PackedRows, kept: Tensor, step: int) -> Tensor | None:
    """Return ``s_{step-1}`` (N, d) within what is saved, or None where nothing is."""
    if not kept.numel():
        return None
    size, d = call.options.max_steps * call.kept_rows * call.config.d_model, call.config.d_model
    return kept[:size].view(call.options.max_steps, call.kept_rows, d)[step - 1, : rows.n_rows]


def unpack(call: RefineCall, rows: PackedRows, values: Tensor) -> Tensor:
    """Unpack rows (N, d) to the shape of the caller's states, with zeros at padding."""
    shape = call.state_shape
    flat = zeroed(shape, dtype=values.dtype, device=values.device).view(-1, call.config.d_model)
    return flat.index_copy_(0, rows.state_row, values).view(shape)
