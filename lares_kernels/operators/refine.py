"""Define ``torch.ops.lares_kernels``: the recurrence as two operators, forward and backward.

Each has a schema, a fake and one implementation for all devices; the backend to run is an argument.
``function.py`` makes them differentiable and gives them their public face. Direct calls of the
operators are checked by the same rules (``checks.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lares_kernels.common.dispatcher import needs_no_dispatcher, same_device
from lares_kernels.common.whole import contiguous_int64
from lares_kernels.operators.checks import check_backward, check_forward
from lares_kernels.operators.once_differentiable import refuse
from lares_kernels.registry.backends import REFINE, Backend, may_pass_on, options_of, plain_name
from lares_kernels.spec.call import PRECISIONS, Given, GivenBackward, RefineCall, Request
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.handover import Handover
from lares_kernels.spec.options import SCHEMA, SEED_PLACE, CallOptions, CallTensors, unpack
from lares_kernels.spec.seeds import seed_for, seed_tensor

library = torch.library.Library("lares_kernels", "DEF")
library.define(
    f"refine(Tensor hidden, Tensor? state, Tensor[] parameters, {SCHEMA}) "
    "-> (Tensor trajectory, Tensor state, Tensor kept)"
)
library.define(
    f"refine_backward(Tensor hidden, Tensor? state, Tensor[] parameters, {SCHEMA}, Tensor kept, "
    "Tensor? g_trajectory, Tensor? g_state) -> Tensor[]"
)


def make_call(
    hidden: Tensor,
    tensors: CallTensors,
    options: CallOptions,
    traced: bool = False,
    handover: Handover | None = None,
    config: CoreConfig | None = None,
) -> RefineCall:
    """Build the call that an operator's arguments describe, with tensors that kernels can read.

    ``config`` is that of the options, if known: a compiler cannot trace the parsing of a key.
    """
    padded = hidden.dim() == 3
    lengths, num_steps, sequence_ids, seed = tensors
    if traced:
        seed = seed_tensor(seed)
    elif isinstance(seed, Tensor):
        seed = seed_for(seed, hidden.device)
    return RefineCall(
        options=options,
        config=CoreConfig.from_key(options.config) if config is None else config,
        lengths=contiguous_int64(lengths),
        padded_length=hidden.shape[1] if padded else 0,
        n_hidden_rows=hidden.shape[0] * hidden.shape[1] if padded else hidden.shape[0],
        sequence_ids=None if sequence_ids is None else contiguous_int64(sequence_ids),
        num_steps=None if num_steps is None else contiguous_int64(num_steps),
        seed=seed if isinstance(seed, Tensor) else seed & 0xFFFFFFFFFFFFFFFF,
        product_dtype=PRECISIONS[options.precision],
        state_dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
        traced=traced,
        handover=handover,
    )


def request_of(call: RefineCall, device_type: str) -> Request:
    """Return what a backend for ``call`` is chosen by."""
    told = options_of(call.options._asdict())
    return Request(call.config, device_type, call.product_dtype, told)


def _refine(
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    *others: Any,
    handover: Handover | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    tensors, options = unpack(others)
    backend = options.backend
    call = make_call(hidden, tensors, options, handover=handover)
    given = Given(hidden, state, parameters)
    if not may_pass_on(backend):
        return REFINE.named(backend).forward(call, given)

    def run(runs: Backend) -> tuple[Tensor, Tensor, Tensor]:
        return runs.forward(call, given)

    dtype = _dtype_of(backend, hidden)
    device = hidden.device
    (trajectory, final, kept), _ = REFINE.run(
        backend, request_of(call, device.type), device.index, run
    )
    return trajectory.to(dtype), final.to(dtype), kept.to(dtype)


def _refine_backward(
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    *others: Any,
    handover: Handover | None = None,
) -> list[Tensor]:
    *of_call, kept, g_trajectory, g_state = others
    tensors, options = unpack(of_call)
    backend = options.backend
    call = make_call(hidden, tensors, options, handover=handover)
    # Compiled graphs pass zeros for an unused output.
    g_state = g_state if options.wants_state else None
    given = GivenBackward(hidden, state, parameters, kept.contiguous(), g_trajectory, g_state)
    if not may_pass_on(backend):
        return REFINE.named(backend).backward(call, given)

    def run(runs: Backend) -> list[Tensor]:
        return runs.backward(call, given)

    dtype = _dtype_of(backend, hidden)
    device = hidden.device
    found, _ = REFINE.run(backend, request_of(call, device.type), device.index, run)
    return [each.to(dtype) for each in found]


def _refine_operator(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    check_forward(hidden, state, parameters, *unpack(others))
    return _refine(hidden, state, parameters, *others)


def check_arguments_of_backward(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *others: Any
) -> None:
    """Raise unless ``torch.ops.lares_kernels.refine_backward`` can be given these."""
    *of_call, kept, g_trajectory, g_state = others
    tensors, options = unpack(of_call)
    check_forward(hidden, state, parameters, tensors, options)
    call = make_call(hidden, tensors, options)
    check_backward(call, hidden, kept, _dtype_of(options.backend, hidden), g_trajectory, g_state)


def _refine_backward_operator(*arguments: Any) -> list[Tensor]:
    check_arguments_of_backward(*arguments)
    return _refine_backward(*arguments)


def _dtype_of(backend: str, hidden: Tensor) -> torch.dtype:
    """Return the type of a backend's results; kernels compute in float32."""
    if hidden.dtype != torch.float64:
        return torch.float32
    served = REFINE.named(plain_name(backend)).serves.widths
    return torch.float64 if torch.float64 in served else torch.float32


def _refine_fake(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    tensors, options = unpack(others)
    *of_sequences, seed = tensors
    same_device(hidden, [state, *parameters, *of_sequences], anywhere=seed)
    call = make_call(hidden, tensors._replace(seed=0), options)
    new = hidden.new_empty
    dtype = _dtype_of(options.backend, hidden)
    trajectory = new((call.n_sequences, options.max_steps, call.config.d_model), dtype=dtype)
    final = new(call.state_shape if options.wants_state else (0,), dtype=dtype)
    if call.padded_length and not options.keeps_padding and options.differentiates:
        # The number of real tokens is not in any shape.
        size = torch.library.get_ctx().new_dynamic_size()
        return trajectory, final, new((size,), dtype=dtype)
    return trajectory, final, new((call.kept_size,), dtype=dtype)


def _refine_backward_fake(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *others: Any
) -> list[Tensor]:
    *of_call, kept, g_trajectory, g_state = others
    (*of_sequences, seed), options = unpack(of_call)
    given = [state, *parameters, *of_sequences, kept, g_trajectory, g_state]
    same_device(hidden, given, anywhere=seed)
    dtype = _dtype_of(options.backend, hidden)
    like = [hidden, *parameters] if state is None else [hidden, *parameters, state]
    return [torch.empty_like(each, dtype=dtype).contiguous() for each in like]


# For tensors of every kind, since what no kernel can read is refused in words of our own.
library.impl("refine", _refine_operator, "CompositeExplicitAutograd")
library.impl("refine_backward", _refine_backward_operator, "CompositeExplicitAutograd")
torch.library.register_fake("lares_kernels::refine", _refine_fake, lib=library)
torch.library.register_fake("lares_kernels::refine_backward", _refine_backward_fake, lib=library)


def _dispatched(name: str) -> Callable[..., Any]:
    """Return the operator ``name``, wrapped to accept a number as its seed."""
    operator = getattr(torch.ops.lares_kernels, name).default

    def run(*arguments: Any) -> Any:
        seed = seed_tensor(arguments[SEED_PLACE], arguments[0].device)
        return operator(*arguments[:SEED_PLACE], seed, *arguments[SEED_PLACE + 1 :])

    return run


dispatched_refine = _dispatched("refine")
_dispatched_backward = _dispatched("refine_backward")


def refine_for(
    hidden: Tensor,
    state: Tensor | None,
    parameters: Sequence[Tensor],
    handover: Handover | None = None,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Return ``torch.ops.lares_kernels.refine``, or its function if no dispatch is needed.

    Operators pass nothing to backward but their results: only a call without them fills ``handover``.
    """
    if needs_no_dispatcher([hidden, state, *parameters]):
        return _refine if handover is None else partial(_refine, handover=handover)
    return dispatched_refine


def refine_backward_for(
    hidden: Tensor,
    state: Tensor | None,
    parameters: Sequence[Tensor],
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
    handover: Handover,
) -> Callable[..., list[Tensor]]:
    """Return ``torch.ops.lares_kernels.refine_backward``, or the plain function under it.

    If gradients may be differentiated again, it is the operator, which refuses that.
    """
    if torch.is_grad_enabled():
        return _dispatched_backward
    if needs_no_dispatcher([hidden, state, *parameters, g_trajectory, g_state]):
        for gradient in (g_trajectory, g_state):
            if gradient is not None and not torch._C._has_storage(gradient):
                refuse("a batch of gradients (vectorize=True, is_grads_batched=True)")
        return partial(_refine_backward, handover=handover)
    return _dispatched_backward
