"""The op: ``refine``, and the ``torch.autograd.Function`` under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lares_kernels import repeated_calls
from lares_kernels.backends import choose
from lares_kernels.call import (
    PRECISIONS,
    RefineCall,
    RefineOutput,
    Request,
    check_rollouts,
    check_steps_done,
    contiguous_int64,
    depths,
    has_dropout,
    lengths_of_cu_seqlens,
    product_precision,
    whole_numbers,
)
from lares_kernels.config import CoreConfig
from lares_kernels.constant_result import constant_result
from lares_kernels.equations import refine_equations
from lares_kernels.ops import make_call, only_run, refine_backward_for, refine_for
from lares_kernels.parameters import check_parameters

_N_OPTIONS = 11  # of RefineFunction, config .. keeps_padding
_FLOAT_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class RefineFunction(torch.autograd.Function):
    """The differentiable op.

    ``apply(hidden, state, lengths, num_steps, sequence_ids, config, backend, precision, rollouts,
    max_steps, steps_done, seed, dropout, zero_state, wants_state, keeps_padding, *parameters)``, as
    :class:`lares_kernels.call.RefineCall` explains them, ``config`` as its ``key``, ``parameters`` in
    the order of :func:`lares_kernels.parameters.parameter_shapes`. Gives (trajectory (S, T, d), final
    state, what backward needs) in the state's type. Gradients flow from the first two to ``hidden``,
    ``state`` and every parameter. It can be differentiated once.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        # One parameter for all of them: torch binds arguments to the signature in every call, which
        # took longer than a small kernel.
        hidden, state, lengths, num_steps, sequence_ids, *options = inputs
        *options, keeps_padding = options[:_N_OPTIONS]
        parameters = list(inputs[5 + _N_OPTIONS :])
        return refine_for(hidden, state, parameters)(
            hidden,
            state,
            parameters,
            lengths,
            num_steps,
            sequence_ids,
            *options,
            True,
            keeps_padding,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        hidden, state, lengths, num_steps, sequence_ids, *options = inputs
        kept = output[2]
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)
        ctx.options = tuple(options[:_N_OPTIONS])
        ctx.save_for_backward(
            hidden, state, lengths, num_steps, sequence_ids, kept, *options[_N_OPTIONS:]
        )

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_trajectory: Tensor | None, g_state: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        hidden, state, lengths, num_steps, sequence_ids, kept, *parameters = ctx.saved_tensors
        *options, keeps_padding = ctx.options
        n_others = 3 + len(ctx.options)
        if g_trajectory is None and g_state is None:
            return (None,) * (2 + n_others + len(parameters))
        grads = refine_backward_for(hidden, state, parameters, g_trajectory, g_state)(
            hidden,
            state,
            parameters,
            lengths,
            num_steps,
            sequence_ids,
            *options,
            True,
            keeps_padding,
            kept,
            g_trajectory,
            g_state,
        )
        state_grad = None if state is None else _as(state, grads.pop())
        hidden_grad, *parameter_grads = grads
        return (
            _as(hidden, hidden_grad),
            state_grad,
            *(None,) * n_others,
            *map(_as, parameters, parameter_grads),
        )


class _RefineNow(torch.autograd.Function):
    """:class:`RefineFunction` where no transform of ``torch.func`` is at work.

    With a ``setup_context`` of its own, which they need, PyTorch binds all arguments to a signature in
    every call. A short call spends a twentieth of its time on that.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output = RefineFunction.forward(*inputs)
        RefineFunction.setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(RefineFunction.backward)  # type: ignore[assignment]


def _as(like: Tensor, gradient: Tensor) -> Tensor:
    """``gradient`` in the type of ``like``."""
    return gradient if gradient.dtype is like.dtype else gradient.to(like.dtype)


def _check_state(config: CoreConfig, state: Tensor, hidden: Tensor, shape: tuple[int, ...]) -> None:
    if not config.is_recurrent:
        raise ValueError("state was given, but with adapter='none' there is no state")
    if state.device != hidden.device or not state.is_floating_point():
        raise ValueError(
            f"state must be floating point on {hidden.device}; got {state.dtype} on {state.device}"
        )
    if tuple(state.shape) != shape:
        raise ValueError(f"state has shape {tuple(state.shape)}; it must be {shape}")


def _lengths(
    hidden: Tensor, lengths: Tensor | Sequence[int] | None, cu_seqlens: Tensor | None
) -> Tensor:
    """Length of each sequence, (B,) contiguous int64 on ``hidden``'s device, not looked at."""
    if hidden.dim() == 3:
        if cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens goes with packed hidden (N, d); give lengths for (B, L, d)"
            )
        n_sequences, longest = hidden.shape[:2]
        if lengths is None:
            return torch.full((n_sequences,), longest, dtype=torch.int64, device=hidden.device)
        given = lengths
        if not (isinstance(given, Tensor) and given.device == hidden.device):
            given = torch.as_tensor(given, device=hidden.device)
        if given.shape != (n_sequences,) or given.is_floating_point():
            raise ValueError(
                f"lengths must hold {n_sequences} whole numbers, one a sequence; "
                f"got shape {tuple(given.shape)} of {given.dtype}"
            )
        return contiguous_int64(given)
    if cu_seqlens is None or lengths is not None:
        raise ValueError("packed hidden (N, d) needs cu_seqlens (B + 1,), and no lengths")
    found = lengths_of_cu_seqlens(cu_seqlens.to(hidden.device))
    if not torch.compiler.is_compiling() and int(cu_seqlens[0]) != 0:
        raise ValueError(
            f"cu_seqlens runs from {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}; "
            f"it must run from 0 to the {len(hidden)} rows of hidden"
        )
    return found


@constant_result
def _backend_name(config: str, device_type: str, precision: str) -> str:
    # Plain strings, since these alone are constants to every version of torch.compile.
    request = Request(CoreConfig.from_key(config), device_type, PRECISIONS[precision])
    return choose(request).backend.name


def refine(
    config: CoreConfig,
    parameters: Mapping[str, Tensor],
    hidden: Tensor,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    cu_seqlens: Tensor | None = None,
    num_steps: int | Tensor = 1,
    state: Tensor | str | None = None,
    steps_done: int = 0,
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
            (N, d) with ``cu_seqlens``. float64, float32, bfloat16 or float16. Mixers ``filter`` and
            ``bsarec`` take the first form alone, ``L`` the core's ``window``, and read padding too.
        lengths: (B,) whole numbers in ``1..L``.
        cu_seqlens: (B + 1,) int32 offsets of packed sequences.
        num_steps: ``T``: a number, or (B,) or (B, rollouts) whole numbers, at least 1.
        state: ``s_0``, shaped like the output's ``state``; None or ``"normal"`` draws it from
            ``seed``, ``"zero"`` starts from zero.
        steps_done: steps that a given ``state`` has behind it. Draws are numbered on from there, so
            that ``t`` steps and then ``T - t`` more with ``steps_done=t`` are the same as ``T`` at
            once; and the states of step ``t`` can be read, and differentiated, in between.
        seed: 64-bit key of dropout and of the drawn state.
        rollouts: independent runs ``G`` of every sequence over the same ``hidden``.
        return_trajectory, return_state: what to give back besides ``last``.
        sequence_ids: (B,) whole numbers below 2^24 that address each sequence's draws; default
            ``0..B-1``. The same seed and id draw the same in any batch.
        training: dropout on, at the rates of ``config``.
        precision: of the matrix products: ``fp64``, ``fp32``, ``bf16`` or ``fp16``; None follows
            autocast, else ``hidden``. It allows rounding: a kernel rounds only where it gains by that.
            Softmax, LayerNorm and the carried state are at least float32.

    Returns:
        :class:`RefineOutput`, in ``hidden``'s type.

    Raises:
        ValueError: a tensor or an option does not fit; the message names it.
        BackendError: the backend asked for cannot serve this call.
    """
    compiling = torch.compiler.is_compiling()
    signature = None
    if not (compiling or training or rollouts != 1 or steps_done):
        signature = repeated_calls.signature_of(
            config, hidden, cu_seqlens, num_steps, state, return_state, precision
        )
    if signature is not None:
        found = repeated_calls.run(
            signature,
            parameters,
            hidden,
            lengths,
            cu_seqlens,
            sequence_ids,
            seed,
            return_trajectory,
        )
        if found is not None:
            return found

    check_hidden(config, hidden)
    ordered = check_parameters(config, parameters, hidden.device)
    if isinstance(state, str) and state not in ("normal", "zero"):
        raise ValueError(f"state is {state!r}; it must be a tensor, None, 'normal' or 'zero'")
    check_rollouts(config, rollouts)
    sizes = _lengths(hidden, lengths, cu_seqlens)
    n_sequences = sizes.shape[0]
    padded = hidden.dim() == 3
    groups = (n_sequences,) if rollouts == 1 else (n_sequences, rollouts)
    steps, max_steps = depths(config, num_steps, n_sequences, rollouts)
    check_steps_done(steps_done, max_steps, isinstance(state, Tensor))
    if steps is not None:
        steps = steps.to(hidden.device)
    if sequence_ids is not None:
        sequence_ids = whole_numbers("sequence_ids", sequence_ids, ((n_sequences,),))
        sequence_ids = sequence_ids.to(hidden.device)
    given_state = None
    if isinstance(state, Tensor):
        given_state = state
        shape = (*groups, *hidden.shape[1:]) if padded else (len(hidden) * rollouts, config.d_model)
        _check_state(config, state, hidden, shape)

    device_type = hidden.device.type
    products = product_precision(precision, hidden.dtype, device_type)
    backend = _backend_name(config.key, device_type, products)
    differentiates = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (hidden, *ordered, given_state) if tensor is not None
    )
    dropout = training and has_dropout(config)
    options: tuple[Any, ...] = (
        config.key,
        backend,
        products,
        rollouts,
        max_steps,
        steps_done,
        seed if compiling else signed(seed),
        dropout,
        isinstance(state, str) and state == "zero",
        return_state,
    )
    tensors = (sizes, steps, sequence_ids)
    # Counting the real tokens would wait for the GPU; sizes of what is compiled follow from shapes.
    keeps_padding = compiling or hidden.is_cuda
    if backend == "equations":
        trajectory, final = _equations(hidden, given_state, parameters, tensors, options)
    elif differentiates:
        function = _RefineNow if only_run(hidden) else RefineFunction
        trajectory, final, _ = function.apply(  # type: ignore[no-untyped-call]
            hidden, given_state, *tensors, *options, keeps_padding, *ordered
        )
    else:
        trajectory, final, _ = refine_for(hidden, given_state, ordered)(
            hidden, given_state, ordered, *tensors, *options, False, keeps_padding
        )
        if signature is not None and backend == "cpu" and not repeated_calls.is_kept(signature):
            repeated_calls.keep(signature, _call_of(hidden, tensors, options, False))

    if trajectory.dtype != hidden.dtype:
        trajectory, final = trajectory.to(hidden.dtype), final.to(hidden.dtype)
    if rollouts > 1:
        trajectory = trajectory.unflatten(0, groups)
    return RefineOutput(
        trajectory.select(-2, -1),
        trajectory if return_trajectory else None,
        final if return_state else None,
    )


def signed(seed: int) -> int:
    """The 64 bits of ``seed`` as operators take them."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)


def _call_of(
    hidden: Tensor,
    tensors: tuple[Tensor, Tensor | None, Tensor | None],
    options: tuple[Any, ...],
    differentiates: bool,
) -> RefineCall:
    """The call that runs here and now with these options."""
    config, _, *others = options
    arguments: tuple[Any, ...] = (hidden, *tensors, config, *others, differentiates, False)
    return make_call(*arguments)


def _equations(
    hidden: Tensor,
    state: Tensor | None,
    parameters: Mapping[str, Tensor],
    tensors: tuple[Tensor, Tensor | None, Tensor | None],
    options: tuple[Any, ...],
) -> tuple[Tensor, Tensor]:
    """The equations, for autograd to differentiate."""
    call = _call_of(hidden, tensors, options, True)
    call.check_values()
    first = None if state is None else call.pack_state(state)
    with torch.autocast(hidden.device.type, enabled=False):
        result = refine_equations(call, call.pack_hidden(hidden), first, parameters)
    return result.trajectory, call.unpack_state(result.state)


def check_hidden(config: CoreConfig, hidden: Tensor) -> None:
    """Raise unless ``hidden`` is (B, L, d) or (N, d), not empty, of a floating type we serve."""
    if hidden.dim() not in (2, 3) or hidden.shape[-1] != config.d_model:
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}; it must be (B, L, {config.d_model}), "
            f"or packed (N, {config.d_model})"
        )
    if config.mixes_window and (hidden.dim() == 2 or hidden.shape[1] != config.window):
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}; mixer={config.mixer!r} mixes the whole padded "
            f"window, so that padding is part of the computation and a packed or shorter input would "
            f"be another model: it must be (B, {config.window}, {config.d_model}), with lengths"
        )
    if hidden.numel() == 0:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}: there is nothing to refine")
    if hidden.dtype not in _FLOAT_TYPES:
        raise TypeError(
            f"hidden is {hidden.dtype}; it must be float64, float32, bfloat16 or float16"
        )
