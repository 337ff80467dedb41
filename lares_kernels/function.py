"""The op: ``refine``, and the ``torch.autograd.Function`` under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lares_kernels.backends import Backend, EquationsBackend, choose
from lares_kernels.call import (
    RefineCall,
    build_call,
    check_lengths,
    lengths_of_cu_seqlens,
    product_dtype,
)
from lares_kernels.config import CoreConfig
from lares_kernels.equations import refine_equations
from lares_kernels.layout import Layout
from lares_kernels.parameters import check_parameters, parameter_shapes

_FLOAT_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class RefineOutput(NamedTuple):
    """What :func:`refine` gives back; ``B`` sequences, ``G`` rollouts.

    Attributes:
        last: (B, d), or (B, G, d) for ``rollouts > 1``: each sequence's newest token after its own
            last step.
        trajectory: (B, T_max, d) or (B, G, T_max, d): that token after every step; past a
            sequence's own depth its last one is repeated. None unless asked for.
        state: final state of every token, if asked for: (B, L, d), zeros at padding, or packed
            (N, d); with rollouts (B, G, L, d), or packed (G N, d) with the rollouts of a sequence
            one after the other.
    """

    last: Tensor
    trajectory: Tensor | None
    state: Tensor | None


class RefineFunction(torch.autograd.Function):
    """The differentiable op on packed rows: ``apply(call, backend, hidden, state, *parameters)``.

    ``parameters`` stand in the order of :func:`lares_kernels.parameters.parameter_shapes`. Gives
    (trajectory (S, T, d), state (N, d)) in the state's type; gradients flow from both to ``hidden``,
    ``state`` and every parameter. It can be differentiated once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        call: RefineCall,
        backend: Backend,
        hidden: Tensor,
        state: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        named = dict(zip(parameter_shapes(call.config), parameters, strict=True))
        result, kept = backend.forward(call, hidden, state, named)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.backend = call, backend
        ctx.save_for_backward(hidden, state, kept, *parameters)
        return result.trajectory, result.state

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_trajectory: Tensor | None, g_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, state, kept, *parameters = ctx.saved_tensors
        if g_trajectory is None and g_state is None:
            return (None,) * (4 + len(parameters))
        named = dict(zip(parameter_shapes(ctx.call.config), parameters, strict=True))
        grads = ctx.backend.backward(ctx.call, hidden, state, named, kept, g_trajectory, g_state)
        state_grad = None
        if state is not None and grads.state is not None:
            state_grad = grads.state.to(state.dtype)
        return (
            None,
            None,
            grads.hidden.to(hidden.dtype),
            state_grad,
            *(grads.parameters[name].to(value.dtype) for name, value in named.items()),
        )


def _packed_state(
    state: Tensor, hidden: Tensor, base: Layout | None, call: RefineCall, rollouts: int
) -> Tensor:
    """The caller's ``state`` as packed rows (N, d) of ``call``'s layout."""
    if not call.config.is_recurrent:
        raise ValueError("state was given, but with adapter='none' there is no state")
    if state.device != hidden.device or not state.is_floating_point():
        raise ValueError(
            f"state must be floating point on {hidden.device}; got {state.dtype} on {state.device}"
        )
    if base is None:  # packed
        wanted: tuple[int, ...] = (call.layout.n_rows, hidden.shape[-1])
    elif rollouts == 1:
        wanted = tuple(hidden.shape)
    else:
        wanted = (hidden.shape[0], rollouts, *hidden.shape[1:])
    if tuple(state.shape) != wanted:
        raise ValueError(f"state has shape {tuple(state.shape)}; it must be {wanted}")
    if base is None:
        return state
    return call.layout.unpad(state if rollouts == 1 else state.flatten(0, 1))


def refine(
    config: CoreConfig,
    parameters: Mapping[str, Tensor],
    hidden: Tensor,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    cu_seqlens: Tensor | None = None,
    num_steps: int | Tensor = 1,
    state: Tensor | str | None = None,
    seed: int = 0,
    rollouts: int = 1,
    return_trajectory: bool = False,
    return_state: bool = False,
    sequence_ids: Tensor | None = None,
    training: bool = False,
    precision: str | None = None,
) -> RefineOutput:
    """Refine every token of a batch: ``s_t = Layers(LayerNorm(adapter(s_{t-1}, H)))``, ``t = 1..T``.

    LARES, arXiv 2505.16865, section 3.2.

    Args:
        config: of the core.
        parameters: by name, as :func:`lares_kernels.parameters.parameter_shapes` lists them.
        hidden: ``H``: (B, L, d), padded on the right, with ``lengths`` (None: all ``L``); or packed
            (N, d) with ``cu_seqlens``. float64, float32, bfloat16 or float16.
        lengths: (B,) whole numbers in ``1..L``.
        cu_seqlens: (B + 1,) int32 offsets of packed sequences.
        num_steps: ``T``: a number, or (B,) or (B, rollouts) whole numbers, at least 1.
        state: ``s_0``, shaped like the output's ``state``; None or ``"normal"`` draws it from
            ``seed``, ``"zero"`` starts from zero.
        seed: 64-bit key of dropout and of the drawn state.
        rollouts: independent runs ``G`` of every sequence over the same ``hidden``.
        return_trajectory, return_state: what to give back besides ``last``.
        sequence_ids: (B,) whole numbers below 2^24 that address each sequence's draws; default
            ``0..B-1``. The same seed and id draw the same in any batch.
        training: dropout on, at the rates of ``config``.
        precision: of the matrix products: ``fp64``, ``fp32``, ``bf16`` or ``fp16``; None follows
            autocast, else ``hidden``. Softmax, LayerNorm and the carried state are at least float32.

    Returns:
        :class:`RefineOutput`, in ``hidden``'s type.

    Raises:
        ValueError: a tensor or an option does not fit; the message names it.
        BackendError: the backend asked for cannot serve this call.
    """
    check_hidden(config, hidden)
    check_parameters(config, parameters)
    if isinstance(state, str) and state not in ("normal", "zero"):
        raise ValueError(f"state is {state!r}; it must be a tensor, None, 'normal' or 'zero'")
    padded = hidden.dim() == 3
    if padded:
        if cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens goes with packed hidden (N, d); give lengths for (B, L, d)"
            )
        n_sequences, longest = hidden.shape[:2]
        if lengths is None:
            checked = torch.full((n_sequences,), longest, dtype=torch.int64, device=hidden.device)
        else:
            given = torch.as_tensor(lengths, device=hidden.device)
            checked = check_lengths(given, n_sequences, longest)
    else:
        if cu_seqlens is None or lengths is not None:
            raise ValueError("packed hidden (N, d) needs cu_seqlens (B + 1,), and no lengths")
        checked = lengths_of_cu_seqlens(cu_seqlens.to(hidden.device), len(hidden))

    call = build_call(
        config,
        checked,
        num_steps=num_steps,
        seed=seed,
        rollouts=rollouts,
        sequence_ids=sequence_ids,
        dropout=training,
        products=product_dtype(precision, hidden),
        hidden=hidden,
        zero_state=isinstance(state, str) and state == "zero",
        wants_state=return_state,
        differentiates=torch.is_grad_enabled()
        and any(
            tensor.requires_grad
            for tensor in (hidden, *parameters.values(), state)
            if isinstance(tensor, Tensor)
        ),
    )
    base: Layout | None = None
    rows = hidden
    if padded:
        base = (
            call.layout
            if rollouts == 1
            else Layout.from_lengths(checked, torch.zeros_like(checked))
        )
        rows = base.unpad(hidden)
    packed_state = None
    if isinstance(state, Tensor):
        packed_state = _packed_state(state, hidden, base, call, rollouts)

    backend = choose(call, hidden.device.type).backend
    if isinstance(backend, EquationsBackend):
        with torch.autocast(hidden.device.type, enabled=False):
            trajectory, final = refine_equations(call, rows, packed_state, parameters)
    else:
        ordered = [parameters[name] for name in parameter_shapes(config)]
        trajectory, final = RefineFunction.apply(call, backend, rows, packed_state, *ordered)  # type: ignore[no-untyped-call]

    groups = (len(checked),) if rollouts == 1 else (len(checked), rollouts)
    trajectory = trajectory.to(hidden.dtype).reshape(*groups, *trajectory.shape[1:])
    final_state: Tensor | None = None
    if return_state:
        final_state = final.to(hidden.dtype)
        if padded:
            final_state = call.layout.pad(final_state, hidden.shape[1])
            final_state = final_state.reshape(*groups, *hidden.shape[1:])
    return RefineOutput(
        trajectory[..., -1, :], trajectory if return_trajectory else None, final_state
    )


def check_hidden(config: CoreConfig, hidden: Tensor) -> None:
    """Raise unless ``hidden`` is (B, L, d) or (N, d), not empty, of a floating type we serve."""
    if hidden.dim() not in (2, 3) or hidden.shape[-1] != config.d_model:
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}; it must be (B, L, {config.d_model}), "
            f"or packed (N, {config.d_model})"
        )
    if hidden.numel() == 0:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}: there is nothing to refine")
    if hidden.dtype not in _FLOAT_TYPES:
        raise TypeError(
            f"hidden is {hidden.dtype}; it must be float64, float32, bfloat16 or float16"
        )
