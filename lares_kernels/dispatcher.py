"""Whether PyTorch's dispatcher has anything to decide about a call.

Where it has nothing, calls go past it: it is a quarter of the cost of a short one.
"""

from __future__ import annotations

from collections.abc import Sequence

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
