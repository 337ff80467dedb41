"""Check whole and real numbers that callers pass, in tensors and single."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from lares_kernels.common import one_number

_WHOLE_TYPES = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)


def is_whole(tensor: Tensor) -> bool:
    """Return True if a tensor is dense and of an integer type; bool is not one."""
    return tensor.dtype in _WHOLE_TYPES and tensor.layout is torch.strided


def described(tensor: Tensor) -> str:
    """Describe the shape and type of a tensor that does not fit."""
    layout = "" if tensor.layout is torch.strided else f", {tensor.layout}"
    return f"shape {tuple(tensor.shape)} of {tensor.dtype}{layout}"


def whole_number(name: str, value: object) -> int:
    """Return ``value`` as an int, symbolic under a compiler. Raise ``TypeError`` unless it is
    whole."""
    if type(value) is int or is_compiling():
        return value  # type: ignore[return-value]
    return one_number.whole_number(name, value)


def real_number(name: str, value: object) -> float:
    """Return ``value`` as a float, symbolic under a compiler. Raise ``TypeError`` unless it is
    one number."""
    if type(value) is float or is_compiling():
        return value  # type: ignore[return-value]
    return one_number.real_number(name, value)


def contiguous_int64(value: Tensor) -> Tensor:
    """Return ``value`` as contiguous int64."""
    # ``to`` takes ten times as long to find that there is nothing to do.
    return (value if value.dtype is torch.int64 else value.to(torch.int64)).contiguous()


def whole_numbers(name: str, value: object, shapes: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return ``value`` as contiguous int64. Raise unless it is an integer tensor in one of
    ``shapes``.

    Raises:
        TypeError, ValueError: it is not.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is of type {type(value).__name__}; it must be a tensor")
    if tuple(value.shape) not in shapes or not is_whole(value):
        wanted = " or ".join(str(shape) for shape in shapes)
        raise ValueError(
            f"{name} must hold whole numbers of shape {wanted}; got {described(value)}"
        )
    return contiguous_int64(value)
