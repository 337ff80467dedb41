"""Implement backends ``reference`` and ``equations`` in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.reference.recurrence import refine_backward, refine_forward
from lares_kernels.registry.backends import register
from lares_kernels.spec.call import FLOAT_TYPES, Given, GivenBackward, RefineCall
from lares_kernels.spec.parameters import parameter_shapes
from lares_kernels.spec.serves import ANY_WIDTH, ServesCores


class PlainTorch:
    """Tell what backend ``reference`` is, of both ops: it serves wherever torch runs."""

    name = "reference"
    preference = 0
    automatic = True
    any_size = True
    starts_kernels = False
    devices = None

    def availability(self) -> str | None:
        return None

    def build(self, product_dtype: torch.dtype) -> str | None:
        return None


class ReferenceBackend(PlainTorch):
    """Run plain PyTorch with the hand-written backward."""

    serves = ServesCores(widths=dict.fromkeys(FLOAT_TYPES, ANY_WIDTH))

    def plan(self, call: RefineCall, device_type: str) -> str:
        kept = f"{call.options.max_steps} states kept, steps recomputed in backward"
        if not call.config.is_recurrent:
            kept = "layers recomputed in backward"
        return (
            f"plain PyTorch on {device_type}, {call.n_rows} packed tokens of "
            f"{call.n_sequences} sequences, products in {call.product_dtype}; {kept}"
        )

    def forward(self, call: RefineCall, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        call.check_values()
        hidden, state, parameters = given
        rows = call.pack_hidden(hidden)
        first = None if state is None else call.pack_state(state)
        with torch.autocast(hidden.device.type, enabled=False):
            result, states = refine_forward(call, rows, first, named(call, parameters))
        final = call.unpack_state(result.state) if call.options.wants_state else states.new_empty(0)
        kept = states.new_empty(call.kept_size)
        if kept.numel():
            order = call.kept_order
            kept_states(call, kept).copy_(states if order is None else states[:, order])
        return result.trajectory, final, kept

    def backward(self, call: RefineCall, given: GivenBackward) -> list[Tensor]:
        call.check_values()
        hidden, state, parameters, kept, g_trajectory, g_state = given
        rows = call.pack_hidden(hidden)
        states = kept_states(call, kept).to(call.state_dtype)
        if call.kept_order is not None:
            states = torch.empty_like(states).index_copy_(1, call.kept_order, states)
        g_rows = None if g_state is None else call.pack_state(g_state)
        by_name = named(call, parameters)
        with torch.autocast(hidden.device.type, enabled=False):
            grads = refine_backward(call, rows, by_name, states, g_trajectory, g_rows)
        g_first = [] if state is None or grads.state is None else [call.unpack_state(grads.state)]
        return [call.unpack_hidden(grads.hidden), *(grads.parameters[n] for n in by_name), *g_first]


def kept_states(call: RefineCall, kept: Tensor) -> Tensor:
    """Return ``s_0 .. s_{T-1}`` (T, N, d) where backends that may run each other's backward keep them:
    the rows of a step by ``call.kept_order``, then room for padding."""
    d, steps = call.config.d_model, call.options.max_steps if call.config.is_recurrent else 0
    size = steps * call.kept_rows * d
    return kept[:size].view(steps, call.kept_rows, d)[:, : call.n_rows]


def named(call: RefineCall, parameters: list[Tensor]) -> dict[str, Tensor]:
    """Return the parameters by name."""
    return dict(zip(parameter_shapes(call.config), parameters, strict=True))


class EquationsBackend(ReferenceBackend):
    """Run the equations as written, differentiated by autograd.

    It keeps every activation of every step. It serves tests, double backward and ``torch.func``, and is
    used only if requested.
    """

    name = "equations"
    preference = -10
    automatic = False

    def plan(self, call: RefineCall, device_type: str) -> str:
        return f"the equations in plain PyTorch on {device_type}, differentiated by autograd"


register(ReferenceBackend())
register(EquationsBackend())
