"""Define the op: ``refine``, and the ``torch.autograd.Function`` under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

from lares_kernels.common.constant_result import constant_result
from lares_kernels.common.dispatcher import can_be_read, is_eager
from lares_kernels.common.whole import whole_number, whole_numbers
from lares_kernels.cpu import repeated_calls
from lares_kernels.operators.once_differentiable import differentiable_by, not_differentiable
from lares_kernels.operators.refine import (
    dispatched_refine,
    library,
    make_call,
    refine_backward_for,
    refine_for,
)
from lares_kernels.reference.equations import refine_equations
from lares_kernels.registry.backends import REFINE, operators_name, options_of
from lares_kernels.spec.call import (
    PRECISIONS,
    RefineOutput,
    Request,
    check_hidden,
    check_rollouts,
    check_state,
    check_steps_done,
    depths,
    draws,
    has_dropout,
    product_precision,
)
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.handover import Handover
from lares_kernels.spec.lengths import check_max_length, lengths_of
from lares_kernels.spec.options import CallOptions, CallTensors, unpack
from lares_kernels.spec.parameters import check_parameters
from lares_kernels.spec.seeds import given_seed, seed_of_call, signed


class RefineFunction(torch.autograd.Function):
    """Differentiate the op under autograd.

    ``apply(hidden, state, *tensors, options, *parameters)``: ``tensors`` those of
    :class:`lares_kernels.spec.options.CallTensors`, ``options`` a
    :class:`lares_kernels.spec.options.CallOptions`, ``parameters`` in the order of
    :func:`lares_kernels.spec.parameters.parameter_shapes`.
    Gives (trajectory (S, T, d), final state, what backward needs) in the state's type. Gradients flow
    from the first two to ``hidden``, ``state`` and every parameter. It can be differentiated once.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        # One parameter for all of them: torch binds arguments to the signature in every call, which
        # took longer than a small kernel.
        found: tuple[Tensor, Tensor, Tensor] = dispatched_refine(*_arguments_of(inputs))
        return found  # the operator has checked what it was given

    @staticmethod
    def setup_context(
        ctx: Any,
        inputs: tuple[Any, ...],
        output: tuple[Tensor, ...],
        handover: Handover | None = None,
    ) -> None:
        hidden, state, *of_sequences, seed, options, parameters = _parts_of(inputs)
        kept = output[2]
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)
        ctx.options = options
        ctx.seed = None if isinstance(seed, Tensor) else seed
        tensors: tuple[Tensor, ...] = ()
        if handover is not None:
            tensors = handover.tensors
            ctx.handover = (handover.by, len(tensors), handover.numbers)
        saved_seed = seed if ctx.seed is None else None
        ctx.save_for_backward(hidden, state, *of_sequences, saved_seed, kept, *parameters, *tensors)

    @staticmethod
    def backward(
        ctx: Any, g_trajectory: Tensor | None, g_state: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        hidden, state, *of_sequences, seed, kept, parameters = _parts_of(ctx.saved_tensors)
        handover = Handover()
        if hasattr(ctx, "handover"):
            handover.by, n_tensors, handover.numbers = ctx.handover
            n_parameters = len(parameters) - n_tensors
            handover.tensors = tuple(parameters[n_parameters:])
            del parameters[n_parameters:]
        if g_trajectory is None and g_state is None:
            return (None,) * (2 + _N_OTHERS + len(parameters))
        run = refine_backward_for(hidden, state, parameters, g_trajectory, g_state, handover)
        tensors = (*of_sequences, ctx.seed if seed is None else seed)
        options = ctx.options._replace(differentiates=True)
        of_call = (hidden, state, parameters, *tensors, *options)
        grads = run(*of_call, kept, g_trajectory, g_state)
        state_grad = None if state is None else _as(state, grads.pop())
        hidden_grad, *parameter_grads = grads
        return (
            _as(hidden, hidden_grad),
            state_grad,
            *(None,) * _N_OTHERS,
            *map(_as, parameters, parameter_grads),
        )


_N_OTHERS = len(CallTensors._fields) + 1  # of RefineFunction's inputs, without a gradient


def _parts_of(inputs: Sequence[Any]) -> list[Any]:
    """Return hidden, state, the :class:`CallTensors`, one thing more, and a list of the others."""
    first = 2 + _N_OTHERS
    return [*inputs[:first], list(inputs[first:])]


def _arguments_of(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return the operator's arguments, from those of :class:`RefineFunction`, kept for backward."""
    hidden, state, *tensors, options, parameters = _parts_of(inputs)
    return (hidden, state, parameters, *tensors, *options._replace(differentiates=True))


def _inputs_of(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *others: Any
) -> tuple[Any, ...]:
    """Return the inputs of :class:`RefineFunction`, from the operator's arguments."""
    tensors, options = unpack(others)
    return (hidden, state, *tensors, options, *parameters)


def _keeping(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *others: Any
) -> tuple[Any, ...]:
    """Return the operator's arguments with ``differentiates``."""
    return _arguments_of(_inputs_of(hidden, state, parameters, *others))


differentiable_by(library, "refine", RefineFunction, _inputs_of, _keeping)
not_differentiable(library, "refine_backward")


class _RefineNow(_SingleLevelFunction):
    """Call the kernels directly, as :class:`RefineFunction` does, where no operator is needed.

    For ``torch.func`` PyTorch binds all arguments to a signature in every call, and asks each whether
    it is left over from a transform. A short call spends a tenth of its time on that.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        arguments = _arguments_of(inputs)
        handover = Handover()
        hidden, state, parameters, *_ = arguments  # which ``refine`` has checked
        output = refine_for(hidden, state, parameters, handover)(*arguments)
        RefineFunction.setup_context(ctx, inputs, output, handover)
        # What did not go through the operator may have the last states in memory of their own.
        return output if handover.last is None else (*output, handover.last)

    @staticmethod
    def backward(
        ctx: Any,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
        _: None,
        g_last: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        if g_last is not None:
            g_trajectory = _with_last(g_trajectory, g_last, ctx.options.max_steps)
        return RefineFunction.backward(ctx, g_trajectory, g_state, None)


def _with_last(g_trajectory: Tensor | None, g_last: Tensor, steps: int) -> Tensor:
    """Return the gradient (S, T, d) of a trajectory whose last states have ``g_last`` (S, d), too."""
    if g_trajectory is None:
        if steps == 1:
            return g_last.unsqueeze(1)
        whole = g_last.new_zeros(g_last.shape[0], steps, g_last.shape[1])
        whole.select(1, -1).copy_(g_last)
        return whole
    return torch.cat((g_trajectory[:, :-1], g_trajectory[:, -1:] + g_last.unsqueeze(1)), dim=1)


def _as(like: Tensor, gradient: Tensor) -> Tensor:
    """Cast ``gradient`` to the type of ``like``."""
    return gradient if gradient.dtype is like.dtype else gradient.to(like.dtype)


@constant_result
def _backend_name(
    config: str, device_type: str, precision: str, index: int | None, *told: str
) -> str:
    # Plain values, since these alone are constants to every version of torch.compile.
    request = Request(CoreConfig.from_key(config), device_type, PRECISIONS[precision], told)
    return operators_name(REFINE.choose(request, index).backend)


def refine(
    config: CoreConfig,
    parameters: Mapping[str, Tensor],
    hidden: Tensor,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    cu_seqlens: Tensor | None = None,
    max_length: int | None = None,
    num_steps: int | Tensor = 1,
    state: Tensor | str | None = None,
    steps_done: int = 0,
    seed: int | Tensor | None = None,
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
        config: options of the core.
        parameters: tensors by name, as :func:`lares_kernels.spec.parameters.parameter_shapes` lists
            them.
        hidden: ``H``: (B, L, d), padded on the right, with ``lengths`` (None: all ``L``); or packed
            (N, d) with ``lengths`` or ``cu_seqlens``. float64, float32, bfloat16 or float16. Mixers
            ``filter`` and ``bsarec`` take only the padded form, ``L`` equal to ``window``, and read
            padding too.
        lengths: (B,) integers in ``1..L``; of packed sequences at least 1, and ``N`` in all.
        cu_seqlens: (B + 1,) int32 offsets of packed sequences, in place of their lengths.
        max_length: upper bound of packed sequences' lengths. With it, a call on a GPU does not
            synchronise; without it, the greatest length is read from the device.
        num_steps: ``T``, at least 1: one integer, or (B,) or (B, rollouts) integers.
        state: ``s_0``, shaped like the output's ``state``; None or ``"normal"`` draws it from
            ``seed``, ``"zero"`` starts from zero.
        steps_done: steps that led to a given ``state``. Draws are numbered on from there: ``t``
            steps and then ``T - t`` more with ``steps_done=t`` equal ``T`` steps in one call, and the
            states of step ``t`` can be read, and differentiated, in between.
        seed: 64-bit key of dropout and of the drawn state: an integer, or a tensor of one. None means
            0; in training, if the call draws random numbers, a new seed from torch's generator in
            every call.
        rollouts: independent runs ``G`` of every sequence over the same ``hidden``.
        return_trajectory, return_state: results to return besides ``last``.
        sequence_ids: (B,) integers below 2^24 that address each sequence's draws; default
            ``0..B-1``. The same seed and id give the same draws in any batch.
        training: apply dropout, at the rates of ``config``.
        precision: of the matrix products: ``fp64``, ``fp32``, ``bf16`` or ``fp16``; None follows
            autocast, else ``hidden``. It permits rounding: a kernel rounds only where that is faster.
            Softmax, LayerNorm and the carried state are at least float32.

    Returns:
        :class:`RefineOutput`, in ``hidden``'s type.

    Raises:
        ValueError, TypeError: a tensor or an option does not fit; the message names it.
        BackendError: the requested backend cannot serve this call.
        RuntimeError: second or forward-mode derivatives are requested, which only backend
            ``equations`` has.
    """
    if seed is not None:
        seed = given_seed(seed)
    elif not training:
        seed = 0
    if not (cu_seqlens is None or isinstance(cu_seqlens, Tensor)):
        cu_seqlens = torch.as_tensor(cu_seqlens)
    rollouts = whole_number("rollouts", rollouts)
    steps_done = whole_number("steps_done", steps_done)
    longest = _longest(max_length)
    signature = None
    if not (torch.compiler.is_compiling() or training or rollouts != 1 or steps_done or longest):
        signature = repeated_calls.signature_of(
            config, hidden, num_steps, state, return_state, precision
        )
    if signature is not None:
        found = repeated_calls.run(
            signature,
            parameters,
            hidden,
            lengths,
            cu_seqlens,
            sequence_ids,
            seed,  # type: ignore[arg-type]  # drawn in training alone
            return_trajectory,
        )
        if found is not None:
            return found

    check_hidden(config, hidden)
    ordered = check_parameters(config, parameters, hidden)
    check_rollouts(config, rollouts)
    sizes = lengths_of(hidden, lengths, cu_seqlens, longest)
    n_sequences = sizes.shape[0]
    steps, max_steps = depths(config, num_steps, n_sequences, rollouts)
    check_steps_done(steps_done, max_steps, isinstance(state, Tensor))
    if steps is not None:
        steps = steps.to(hidden.device)
    if sequence_ids is not None:
        sequence_ids = whole_numbers("sequence_ids", sequence_ids, ((n_sequences,),))
        sequence_ids = sequence_ids.to(hidden.device)
    given_state = _given_state(config, hidden, state, n_sequences, rollouts)

    differentiates = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (hidden, *ordered, given_state) if tensor is not None
    )
    dropout = training and has_dropout(config)
    plain = (differentiates or seed is None) and is_eager(hidden)
    if seed is None:
        seed = seed_of_call(None, draws(config, state, dropout), hidden.device)
        if plain and not hidden.is_cuda:
            seed = int(seed)
    seed = signed(seed) if isinstance(seed, int) else seed
    tensors = CallTensors(sizes, steps, sequence_ids, seed)
    traced = not can_be_read(sizes)
    told: dict[str, Any] = {
        "rollouts": rollouts,
        "max_steps": max_steps,
        "steps_done": steps_done,
        "dropout": dropout,
        "zero_state": isinstance(state, str) and state == "zero",
        "wants_state": return_state,
        "differentiates": differentiates,
        # Counting the real tokens would wait for the GPU; sizes of what is compiled follow from shapes.
        "keeps_padding": traced or not hidden.is_cpu,
        "max_length": longest,
    }
    products = product_precision(precision, hidden.dtype, hidden.device.type)
    backend = _backend_name(
        config.key, hidden.device.type, products, hidden.device.index, *options_of(told)
    )
    options = CallOptions(config.key, backend, products, **told)
    last = None  # where no kernel has put the last states apart
    # A loop whose count is not known yet cannot be traced: the operator loops inside.
    if backend == "equations" and not (traced and steps is not None):
        trajectory, final = _equations(
            config, hidden, given_state, parameters, tensors, options, traced
        )
    elif differentiates and plain:
        trajectory, final, _, *own_last = _RefineNow.apply(  # type: ignore[attr-defined]
            hidden, given_state, *tensors, options, *ordered
        )
        last = own_last[0] if own_last else None
    else:
        handover = Handover()
        run = refine_for(hidden, given_state, ordered, handover)
        trajectory, final, _ = run(hidden, given_state, ordered, *tensors, *options)
        last = handover.last
        if signature is not None and backend == "cpu" and not repeated_calls.is_cached(signature):
            repeated_calls.keep(signature, make_call(hidden, tensors, options))
    if last is None:
        last = _last_of(trajectory, steps if traced else None)
    last = last.to(hidden.dtype)
    whole = trajectory.to(hidden.dtype) if return_trajectory else None
    if rollouts > 1:
        groups = (n_sequences, rollouts)
        last = last.unflatten(0, groups)
        whole = None if whole is None else whole.unflatten(0, groups)
    return RefineOutput(last, whole, final.to(hidden.dtype) if return_state else None)


def _longest(max_length: int | None) -> int:
    """Return the upper bound of packed sequences' lengths that a caller has given, 0 for none."""
    if max_length is None:
        return 0
    longest = whole_number("max_length", max_length)
    check_max_length(longest, least=1)
    return longest


def _given_state(
    config: CoreConfig,
    hidden: Tensor,
    state: Tensor | str | None,
    n_sequences: int,
    rollouts: int,
) -> Tensor | None:
    """Return the first state that a caller has given; None where it is drawn or zero.

    Raises:
        ValueError, TypeError: it is neither a word that is known nor a tensor that fits.
    """
    if state is None or (isinstance(state, str) and state in ("normal", "zero")):
        return None
    if not isinstance(state, Tensor):
        raise ValueError(f"state is {state!r}; it must be a tensor, None, 'normal' or 'zero'")
    groups = (n_sequences,) if rollouts == 1 else (n_sequences, rollouts)
    rows = (hidden.shape[0] * rollouts, config.d_model)
    check_state(
        config, state, hidden.device, (*groups, *hidden.shape[1:]) if hidden.dim() == 3 else rows
    )
    return state


def _last_of(trajectory: Tensor, steps: Tensor | None) -> Tensor:
    """Return the last states (S, d) of a trajectory (S, T, d), in memory of their own.

    ``steps`` (S,) is given where how many there are is a symbol, which compilers cannot index by; a
    tensor they can.
    """
    if steps is not None:
        return trajectory[torch.arange(steps.shape[0], device=trajectory.device), steps - 1]
    # Saved alone it must not take the trajectory along.
    return trajectory.select(1, -1).clone(memory_format=torch.contiguous_format)


def _equations(
    config: CoreConfig,
    hidden: Tensor,
    state: Tensor | None,
    parameters: Mapping[str, Tensor],
    tensors: CallTensors,
    options: CallOptions,
    traced: bool,
) -> tuple[Tensor, Tensor]:
    """Run the equations, for autograd to differentiate."""
    options = options._replace(differentiates=True, keeps_padding=False, max_length=0)
    call = make_call(hidden, tensors, options, traced, config=config)
    if traced:
        call.check_values_when_run()
    else:
        call.check_values()
    first = None if state is None else call.pack_state(state)
    with _without_autocast(hidden):
        result = refine_equations(call, call.pack_hidden(hidden), first, parameters)
    return result.trajectory, call.unpack_state(result.state)


def _without_autocast(hidden: Tensor) -> AbstractContextManager[Any]:
    """Leave autocast, which there is none of on meta."""
    device_type = hidden.device.type
    return nullcontext() if hidden.is_meta else torch.autocast(device_type, enabled=False)
