"""Compute the recurrence and its hand-written backward, in plain PyTorch.

It is the model of every kernel: forward saves one state per step and nothing else; backward goes
through the steps from last to first, recomputes a step from its saved state and differentiates it.
Random decisions are drawn again from their addresses. ``equations.py`` is the program this must
equal.

Names are as in ``backward.py``, which has a step's layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.reference import equations as eq
from lares_kernels.reference.backward import (
    Gradients,
    layer_backward,
    layer_forward,
    linear_backward,
    norm_backward,
    norm_forward,
)
from lares_kernels.reference.equations import Parameters, RefineResult
from lares_kernels.reference.window_backward import window_layer_backward, window_layer_forward
from lares_kernels.spec.call import RefineCall
from lares_kernels.spec.layout import Layout
from lares_kernels.spec.parameters import layer_parameters_of


def layers_backward(
    call: RefineCall,
    layout: Layout,
    p: Parameters,
    x: Tensor,
    g_y: Tensor,
    step: int,
    grads: Gradients,
) -> Tensor:
    """Recompute all layers of a step from their input ``x`` and differentiate them; gives g_x."""
    mixes = call.config.mixes_window
    forward: Any = window_layer_forward if mixes else layer_forward
    backward: Any = window_layer_backward if mixes else layer_backward
    tapes = []
    g_y = eq.mask_padding(layout, g_y)
    for layer in range(call.config.n_layers):
        x, tape = forward(call, layout, eq.layer_parameters(call, p, layer), x, layer, step)
        tapes.append(tape)
    for layer in reversed(range(call.config.n_layers)):
        # Views into the stacked gradients: += on them adds to the whole.
        layer_grads = {name: grads[name][layer] for name in layer_parameters_of(call.config)}
        weights = eq.layer_parameters(call, p, layer)
        g_y = eq.mask_padding(layout, backward(call, weights, g_y, tapes[layer], layer_grads))
    return g_y


def adapt_backward(
    call: RefineCall, p: Parameters, g_x: Tensor, state: Tensor, hidden: Tensor, grads: Gradients
) -> tuple[Tensor, Tensor]:
    """Return gradients of the adapter's inputs (g_state, g_hidden)."""
    if call.config.adapter == "add":
        half = 0.5 * g_x
        return half, half
    if call.config.adapter == "gate":
        gate = torch.sigmoid(p["gate"].to(call.state_dtype))
        grads["gate"] += (g_x * (state - hidden)).sum() * gate * (1.0 - gate)
        return gate * g_x, (1.0 - gate) * g_x
    both = torch.cat((state, hidden), dim=-1)
    g_both, g_weight, g_bias = linear_backward(call, g_x, both, p["concat_weight"])
    grads["concat_weight"] += g_weight
    grads["concat_bias"] += g_bias
    g_state, g_hidden = g_both.chunk(2, dim=-1)
    return g_state, g_hidden


def step_backward(
    call: RefineCall,
    layout: Layout,
    p: Parameters,
    state: Tensor,
    hidden: Tensor,
    g_next: Tensor,
    step: int,
    grads: Gradients,
) -> tuple[Tensor, Tensor]:
    """Differentiate ``s_t`` with respect to ``s_{t-1}`` and ``H``: (g_state, g_hidden), (N, d) each."""
    adapted = eq.adapt(call, p, state, hidden)
    x, norm = norm_forward(call, adapted, p["core_norm_weight"], p["core_norm_bias"])
    g_x = layers_backward(call, layout, p, x, g_next, step, grads)
    g_x, g_weight, g_bias = norm_backward(call, g_x, p["core_norm_weight"], norm)
    grads["core_norm_weight"] += g_weight
    grads["core_norm_bias"] += g_bias
    return adapt_backward(call, p, g_x, state, hidden, grads)


# --- the whole recurrence -------------------------------------------------------------------------


class RefineGradients(NamedTuple):
    """Hold the results of :func:`refine_backward`."""

    hidden: Tensor  # like the caller's packed hidden
    state: Tensor | None  # (N, d) of s_0; None for adapter "none"
    parameters: Gradients


def refine_forward(
    call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: Parameters
) -> tuple[RefineResult, Tensor]:
    """Run the recurrence without autograd.

    Returns:
        The result, and the states ``s_0 .. s_{T-1}`` (T, N, d) that backward starts its steps from
        (T = 0 for adapter ``none``).
    """
    rows_hidden = eq.hidden_of_rows(call, hidden)
    if not call.config.is_recurrent:
        final = eq.layers_once(call, parameters, rows_hidden)
        result = RefineResult(final[call.layout.last_rows][:, None], final)
        return result, final.new_empty((0, *final.shape))
    current = eq.first_state(call, state)
    states, last_rows = [], []
    for step in range(1, call.options.max_steps + 1):
        states.append(current)
        layout, rows = eq.active_sequences(call, step)
        if rows is None:
            current = eq.reasoning_step(call, layout, parameters, current, rows_hidden, step)
        else:
            before, there = current[rows], rows_hidden[rows]
            refined = eq.reasoning_step(call, layout, parameters, before, there, step)
            current = current.index_copy(0, rows, refined)
        last_rows.append(current[call.layout.last_rows])
    return RefineResult(torch.stack(last_rows, dim=1), current), torch.stack(states)


def refine_backward(
    call: RefineCall,
    hidden: Tensor,
    parameters: Parameters,
    states: Tensor,
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
) -> RefineGradients:
    """Differentiate the recurrence.

    Args:
        call, hidden, parameters: as in forward.
        states: (T, N, d) of :func:`refine_forward`.
        g_trajectory: (S, T, d) gradient of every step's last row, or None for zero.
        g_state: (N, d) gradient of the final state, or None for zero.
    """
    rows_hidden = eq.hidden_of_rows(call, hidden)
    last_rows = call.layout.last_rows
    grads = {
        name: torch.zeros_like(value, dtype=call.state_dtype) for name, value in parameters.items()
    }
    g_current = (
        torch.zeros_like(rows_hidden)
        if g_state is None
        else g_state.to(call.state_dtype, copy=True)
    )
    if not call.config.is_recurrent:
        if g_trajectory is not None:
            g_current[last_rows] += g_trajectory[:, 0].to(call.state_dtype)
        g_rows = layers_backward(call, call.layout, parameters, rows_hidden, g_current, 0, grads)
        return RefineGradients(g_rows, None, grads)

    g_rows = torch.zeros_like(rows_hidden)
    for step in range(call.options.max_steps, 0, -1):
        if g_trajectory is not None:
            g_current[last_rows] += g_trajectory[:, step - 1].to(call.state_dtype)
        layout, rows = eq.active_sequences(call, step)
        before = states[step - 1]
        if rows is None:
            g_current, g_here = step_backward(
                call, layout, parameters, before, rows_hidden, g_current, step, grads
            )
            g_rows += g_here
        else:
            # A sequence that finished before this step passes its gradient on unchanged.
            g_before, g_here = step_backward(
                call,
                layout,
                parameters,
                before[rows],
                rows_hidden[rows],
                g_current[rows],
                step,
                grads,
            )
            g_current[rows] = g_before
            g_rows[rows] += g_here
    if call.hidden_rows is not None:
        shared = g_rows.new_zeros((len(hidden), g_rows.shape[1]))
        g_rows = shared.index_add_(0, call.hidden_rows, g_rows)
    return RefineGradients(g_rows, g_current, grads)
