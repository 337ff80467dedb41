"""Whether PyTorch's dispatcher has anything to decide about a call.

Where it has nothing, calls go past it: it is a quarter of the cost of a short one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# By their own names, since all of them are asked in every call.
from torch._C import _get_tracing_state, _has_storage, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad, profiler
from torch.compiler import is_compiling
from torch.nn import Parameter

_PLAIN = frozenset((Tensor, Parameter))  # types without code of their own


def only_run(hidden: Tensor) -> bool:
    """Whether a call is to be run and nothing else: no compiler, trace, transform, mode, profiler or
    forward mode sees it, and ``hidden`` is not left over from one."""
    return (
        type(hidden) in _PLAIN
        and not is_compiling()
        and _get_tracing_state() is None
        and _len_torch_dispatch_stack() == 0
        and peek_interpreter_stack() is None
        and not profiler._is_profiler_enabled
        and forward_ad._current_level < 0
        and _has_storage(hidden)
    )


def is_traced() -> bool:
    """Whether a compiler, a trace or a mode sees what is computed."""
    return is_compiling() or _get_tracing_state() is not None or _len_torch_dispatch_stack() != 0


def gives_plain_tensors() -> bool:
    """Whether what is computed now may be kept for any later call: nothing traces or transforms it, and
    autograd may save it."""
    return not (
        is_traced() or peek_interpreter_stack() is not None or torch.is_inference_mode_enabled()
    )


def can_be_read(tensor: Tensor) -> bool:
    """Whether the numbers in ``tensor`` are there to be looked at: it is no stand-in, as tracers,
    fake tensors and ``meta`` have, and no program is being made that runs with other numbers."""
    return type(tensor) in _PLAIN and not tensor.is_meta and not is_traced()


def check_when_run(holds: Tensor, message: str) -> None:
    """Let the program that is traced raise ``RuntimeError`` unless ``holds`` () bool."""
    if not holds.is_meta:
        torch._assert_async(holds, message)


def may_have_tangents() -> bool:
    """Whether tensors may carry tangents of forward mode."""
    return forward_ad._current_level >= 0


def needs_no_dispatcher(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a call is only to be run, and as the tensors, of which the first is there, lie in memory.

    The dispatcher hands subclasses to their own code, and makes tensors of views that PyTorch negates
    as they are read, such as the imaginary part of a conjugate.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        only_run(given[0])
        and not given[0].is_meta
        and _PLAIN.issuperset(map(type, given))
        and not any(map(Tensor.is_neg, given))
    )


def same_device(
    first: Tensor, others: Sequence[Tensor | None], anywhere: Tensor | None = None
) -> None:
    """Raise ``ValueError`` unless all tensors are where ``first`` is.

    For fake implementations, which the dispatcher takes as soon as one tensor is on ``meta``: they
    would give memory that nobody writes to.

    Args:
        anywhere: may be on another device, but not on ``meta`` alone.
    """
    if anywhere is not None and anywhere.is_meta and not first.is_meta:
        others = [*others, anywhere]
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(f"a tensor is on {other.device}, but the first on {first.device}")
