"""``torch.ops.lares_kernels``: the recurrence as two operators, forward and backward.

Definition, fake implementation and one implementation for all devices; which backend runs is an
argument. ``function.py`` makes them differentiable and gives them their public face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# By their own names, since all of them are asked in every call.
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import profiler
from torch.compiler import is_compiling
from torch.nn import Parameter

from lares_kernels.backends import backend_named
from lares_kernels.call import PRECISIONS, RefineCall
from lares_kernels.config import CoreConfig

_PLAIN = frozenset((Tensor, Parameter))  # types without code of their own
_OPTIONS = (
    "Tensor lengths, Tensor? num_steps, Tensor? sequence_ids, str config, str backend, "
    "str precision, int rollouts, SymInt max_steps, SymInt steps_done, SymInt seed, bool dropout, "
    "bool zero_state, bool wants_state, bool differentiates, bool keeps_padding"
)
_library = torch.library.Library("lares_kernels", "DEF")
_library.define(
    f"refine(Tensor hidden, Tensor? state, Tensor[] parameters, {_OPTIONS}) "
    "-> (Tensor trajectory, Tensor state, Tensor kept)"
)
_library.define(
    f"refine_backward(Tensor hidden, Tensor? state, Tensor[] parameters, {_OPTIONS}, Tensor kept, "
    "Tensor? g_trajectory, Tensor? g_state) -> Tensor[]"
)


def make_call(
    hidden: Tensor,
    lengths: Tensor,
    num_steps: Tensor | None,
    sequence_ids: Tensor | None,
    config: str,
    precision: str,
    rollouts: int,
    max_steps: int,
    steps_done: int,
    seed: int,
    dropout: bool,
    zero_state: bool,
    wants_state: bool,
    differentiates: bool,
    keeps_padding: bool,
) -> RefineCall:
    """The call that an operator's plain arguments describe."""
    padded = hidden.dim() == 3
    return RefineCall(
        config=CoreConfig.from_key(config),
        lengths=lengths,
        padded_length=hidden.shape[1] if padded else 0,
        n_hidden_rows=hidden.shape[0] * hidden.shape[1] if padded else hidden.shape[0],
        rollouts=rollouts,
        sequence_ids=sequence_ids,
        num_steps=num_steps,
        max_steps=max_steps,
        steps_done=steps_done,
        seed=seed & 0xFFFFFFFFFFFFFFFF,
        dropout=dropout,
        product_dtype=PRECISIONS[precision],
        state_dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
        zero_state=zero_state,
        wants_state=wants_state,
        differentiates=differentiates,
        keeps_padding=keeps_padding,
    )


def _refine(
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    lengths: Tensor,
    num_steps: Tensor | None,
    sequence_ids: Tensor | None,
    config: str,
    backend: str,
    precision: str,
    rollouts: int,
    max_steps: int,
    steps_done: int,
    seed: int,
    dropout: bool,
    zero_state: bool,
    wants_state: bool,
    differentiates: bool,
    keeps_padding: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    call = make_call(
        hidden,
        lengths,
        num_steps,
        sequence_ids,
        config,
        precision,
        rollouts,
        max_steps,
        steps_done,
        seed,
        dropout,
        zero_state,
        wants_state,
        differentiates,
        keeps_padding,
    )
    return backend_named(backend).forward(call, hidden, state, parameters)


def _refine_backward(
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    lengths: Tensor,
    num_steps: Tensor | None,
    sequence_ids: Tensor | None,
    config: str,
    backend: str,
    precision: str,
    rollouts: int,
    max_steps: int,
    steps_done: int,
    seed: int,
    dropout: bool,
    zero_state: bool,
    wants_state: bool,
    differentiates: bool,
    keeps_padding: bool,
    kept: Tensor,
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
) -> list[Tensor]:
    call = make_call(
        hidden,
        lengths,
        num_steps,
        sequence_ids,
        config,
        precision,
        rollouts,
        max_steps,
        steps_done,
        seed,
        dropout,
        zero_state,
        wants_state,
        differentiates,
        keeps_padding,
    )
    # Compiled graphs hand in zeros for an output that nobody read.
    g_state = g_state if wants_state else None
    return backend_named(backend).backward(
        call, hidden, state, parameters, kept, g_trajectory, g_state
    )


def _refine_fake(
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    lengths: Tensor,
    num_steps: Tensor | None,
    sequence_ids: Tensor | None,
    config: str,
    backend: str,
    precision: str,
    rollouts: int,
    max_steps: int,
    steps_done: int,
    seed: int,
    *flags: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    call = make_call(
        hidden,
        lengths,
        num_steps,
        sequence_ids,
        config,
        precision,
        rollouts,
        max_steps,
        steps_done,
        seed,
        *flags,
    )
    new = hidden.new_empty
    dtype = call.state_dtype
    trajectory = new((call.n_sequences, max_steps, call.config.d_model), dtype=dtype)
    final = new(call.state_shape if call.wants_state else (0,), dtype=dtype)
    if call.padded_length and not call.keeps_padding and call.differentiates:
        # The number of real tokens is not in any shape.
        size = torch.library.get_ctx().new_dynamic_size()
        return trajectory, final, new((size,), dtype=dtype)
    return trajectory, final, new((call.kept_size,), dtype=dtype)


def _refine_backward_fake(
    hidden: Tensor, state: Tensor | None, parameters: list[Tensor], *rest: object
) -> list[Tensor]:
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    like = [hidden, *parameters] if state is None else [hidden, *parameters, state]
    return [torch.empty_like(each, dtype=dtype).contiguous() for each in like]


for _key in ("CPU", "CUDA"):
    _library.impl("refine", _refine, _key)
    _library.impl("refine_backward", _refine_backward, _key)
torch.library.register_fake("lares_kernels::refine", _refine_fake, lib=_library)
torch.library.register_fake("lares_kernels::refine_backward", _refine_backward_fake, lib=_library)

_dispatched_refine = torch.ops.lares_kernels.refine.default
_dispatched_backward = torch.ops.lares_kernels.refine_backward.default


def only_run(hidden: Tensor) -> bool:
    """Whether a call is to be run and nothing else: no compiler, trace, transform, mode or profiler
    sees it.

    Then PyTorch's dispatcher, a quarter of the cost of a short call, has nothing to decide.
    """
    return (
        type(hidden) in _PLAIN
        and not is_compiling()
        and _get_tracing_state() is None
        and _len_torch_dispatch_stack() == 0
        and peek_interpreter_stack() is None
        and not profiler._is_profiler_enabled
    )


def _needs_no_dispatcher(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a call is only to be run, and as the tensors lie in memory.

    The dispatcher hands subclasses to their own code, and makes tensors of views that PyTorch negates
    as they are read, such as the imaginary part of a conjugate.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        only_run(given[0])
        and _PLAIN.issuperset(map(type, given))
        and not any(map(Tensor.is_neg, given))
    )


def refine_for(
    hidden: Tensor, state: Tensor | None, parameters: Sequence[Tensor]
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """``torch.ops.lares_kernels.refine``, or what it runs, as a call with these tensors needs."""
    if _needs_no_dispatcher([hidden, state, *parameters]):
        return _refine
    return _dispatched_refine


def refine_backward_for(
    hidden: Tensor,
    state: Tensor | None,
    parameters: Sequence[Tensor],
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
) -> Callable[..., list[Tensor]]:
    """``torch.ops.lares_kernels.refine_backward``, or what it runs."""
    if _needs_no_dispatcher([hidden, state, *parameters, g_trajectory, g_state]):
        return _refine_backward
    return _dispatched_backward
