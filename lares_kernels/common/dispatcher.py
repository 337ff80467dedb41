"""Decide whether PyTorch's dispatcher has to see a call.

If it has not, calls bypass it: it is a quarter of the cost of a short one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Imported by name, since every call checks all of them.
from torch._C import _get_tracing_state, _has_storage, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad, profiler
from torch.compiler import is_compiling
from torch.nn import Parameter

_PLAIN = frozenset((Tensor, Parameter))  # types without code of their own


def is_eager(hidden: Tensor) -> bool:
    """Return True if a call runs eagerly: no compiler, tracer, functorch transform, dispatch
    mode, profiler or forward-mode AD is active, and ``hidden`` was not left over from one."""
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
    """Return True if a compiler, a tracer or a dispatch mode records what is computed."""
    return is_compiling() or _get_tracing_state() is not None or _len_torch_dispatch_stack() != 0


def gives_plain_tensors() -> bool:
    """Return True if a result may be cached for later calls: it is neither traced nor
    transformed, and autograd may save it."""
    return not (
        is_traced() or peek_interpreter_stack() is not None or torch.is_inference_mode_enabled()
    )


def can_be_read(tensor: Tensor) -> bool:
    """Return True if the values of ``tensor`` can be read: it is no fake, ``meta`` or traced
    tensor, and no program is being compiled or captured that will run with other values."""
    return type(tensor) in _PLAIN and not tensor.is_meta and not is_traced()


def check_when_run(holds: Tensor, message: str) -> None:
    """Make the traced program raise ``RuntimeError`` unless ``holds`` () bool."""
    if not holds.is_meta:
        torch._assert_async(holds, message)


def may_have_tangents() -> bool:
    """Return True if tensors may carry forward-mode tangents."""
    return forward_ad._current_level >= 0


def needs_no_dispatcher(tensors: Sequence[Tensor | None]) -> bool:
    """Return True if a call runs eagerly on plain tensors, the first of which is not None.

    The dispatcher calls subclasses' own code, and materialises lazily negated views, such as the
    imaginary part of a conjugate.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        is_eager(given[0])
        and not given[0].is_meta
        and _PLAIN.issuperset(map(type, given))
        and not any(map(Tensor.is_neg, given))
    )


def same_device(
    first: Tensor, others: Sequence[Tensor | None], anywhere: Tensor | None = None
) -> None:
    """Raise ``ValueError`` unless all tensors are where ``first`` is.

    For fake implementations, which the dispatcher calls if any tensor is on ``meta``: they would
    return memory that is never written.

    Args:
        anywhere: may be on another device, but not on ``meta`` alone.
    """
    if anywhere is not None and anywhere.is_meta and not first.is_meta:
        others = [*others, anywhere]
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(f"a tensor is on {other.device}, but the first on {first.device}")
