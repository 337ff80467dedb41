"""Tensors as callers may have them: the same numbers laid out otherwise, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.runner import Failure

_DTYPES = (
    torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint64,
)  # fmt: skip
_EXTREMES = (0, -1, 1 << 16, 1 << 24, 1 << 40, (1 << 63) - 1, -(1 << 63))
# Of numbers that are computed with: beside a larger one little is left of the others' digits, and
# what is left depends on how a processor's library rounds.
_FLOAT_EXTREMES = (0.0, -1.0, 16.0, float("inf"), float("nan"))


def _poison(dtype: torch.dtype) -> float | int:
    """What stands between and after the numbers of a tensor: nothing that a call could take."""
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return 1 if dtype == torch.bool else torch.iinfo(dtype).max


def spread(tensor: Tensor, rng: Random) -> Tensor:
    """The same numbers, with gaps and in another order of dimensions, among poison."""
    order = list(range(tensor.dim()))
    rng.shuffle(order)
    gaps = [rng.choice((1, 1, 2, 3)) for _ in order]
    strides, size = [0] * tensor.dim(), 1
    for dim in order:
        strides[dim] = size * gaps[dim]
        size = strides[dim] * max(tensor.shape[dim], 1)
    start, end = rng.choice((0, 1, 5)), rng.choice((0, 7))
    memory = torch.full((start + size + end,), 0, dtype=tensor.dtype)
    memory.fill_(_poison(tensor.dtype))
    view = memory.as_strided(tensor.shape, strides, start)
    view.copy_(tensor)
    return view


def expanded(tensor: Tensor, rng: Random) -> Tensor:
    """One number (or row) for all, of stride 0, at the end of its memory."""
    if not tensor.dim() or not tensor.numel():
        return tensor
    dim = rng.randrange(tensor.dim())
    first = tensor.narrow(dim, 0, 1).clone()
    return first.expand(tensor.shape)


def negated(tensor: Tensor, rng: Random) -> Tensor:
    """A view that PyTorch negates as it is read."""
    if not tensor.is_floating_point():
        return tensor
    return torch._neg_view(-tensor)


def retyped(tensor: Tensor, rng: Random) -> Tensor:
    dtype = rng.choice(_DTYPES)
    if not dtype.is_floating_point and tensor.is_floating_point():
        tensor = tensor.nan_to_num().clamp(0, 100)
    return tensor.to(dtype)


def reshaped(tensor: Tensor, rng: Random) -> Tensor:
    """Another shape: more or less of a dimension, another dimension, one less."""
    kind = rng.randrange(5)
    if kind == 0 or not tensor.dim():
        return tensor.unsqueeze(rng.randint(0, tensor.dim()))
    dim = rng.randrange(tensor.dim())
    if kind == 1:
        return tensor.narrow(dim, 0, max(tensor.shape[dim] - 1, 0))
    if kind == 2:
        return torch.cat([tensor, tensor.narrow(dim, 0, min(1, tensor.shape[dim]))], dim)
    if kind == 3:
        return tensor.flatten()
    return tensor.select(dim, 0) if tensor.shape[dim] else tensor


def extreme(tensor: Tensor, rng: Random) -> Tensor:
    """With one number that is far off."""
    if tensor.is_complex() or tensor.dtype == torch.bool or not tensor.numel():
        return tensor
    changed = tensor.clone(memory_format=torch.contiguous_format)
    value: float
    if tensor.is_floating_point():
        value = rng.choice(_FLOAT_EXTREMES)
    else:
        info = torch.iinfo(tensor.dtype)
        value = min(max(rng.choice(_EXTREMES), info.min), info.max)
    changed.view(-1)[rng.randrange(tensor.numel())] = value
    return changed


def elsewhere(tensor: Tensor, rng: Random) -> Tensor:
    return tensor.to("meta")


def sparse(tensor: Tensor, rng: Random) -> Tensor:
    if tensor.dim() == 0 or tensor.dtype in (torch.uint16, torch.uint64):
        return tensor
    return tensor.to_sparse()


_LAYOUTS: Sequence[Callable[[Tensor, Random], Tensor]] = (spread, spread, spread, expanded, negated)
_CHANGES: Sequence[Callable[[Tensor, Random], Tensor]] = (
    retyped, retyped, reshaped, reshaped, extreme, extreme, elsewhere, sparse,
)  # fmt: skip


def changed(tensor: Tensor, rng: Random) -> Tensor:
    """The tensor laid out otherwise, and sometimes one that does not fit."""
    if rng.random() < 0.3:
        tensor = rng.choice(_CHANGES)(tensor, rng)
    if tensor.layout is torch.strided and not tensor.is_meta and rng.random() < 0.8:
        tensor = rng.choice(_LAYOUTS)(tensor, rng)
    return tensor


def contiguous(value: Any) -> Any:
    """A contiguous copy of a tensor; of a list or a dictionary of them; else the value."""
    if isinstance(value, list):
        return [contiguous(each) for each in value]
    if isinstance(value, dict):
        return {name: contiguous(each) for name, each in value.items()}
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        return value
    return value.resolve_neg().clone(memory_format=torch.contiguous_format)


Outcome = str | list[Tensor]


def outcome(call: Callable[[], Sequence[Tensor | None]]) -> Outcome:
    """The tensors that a call gives, or the type and the one line of its error."""
    try:
        return [tensor for tensor in call() if tensor is not None]
    except (ValueError, TypeError, RuntimeError) as error:
        text = str(error)
        if not text or "\n" in text.strip():
            raise Failure(f"an error of several lines: {text}") from error
        return f"{type(error).__name__}: {text}"
    except Exception as error:
        raise Failure(f"{type(error).__name__}: {error}") from error


_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def same(mine: Outcome, other: Outcome) -> bool:
    """Whether both are errors, or tensors of the same numbers, to rounding: a library's products
    round otherwise where their factors lie otherwise. NaN is a number."""
    if isinstance(mine, str) or isinstance(other, str):
        return isinstance(mine, str) and isinstance(other, str)
    # On the scale of the largest: a gradient may be zero but for rounding.
    scale = max((_size(tensor) for tensor in other), default=0.0)
    return len(mine) == len(other) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and _close(a, b, scale)
        for a, b in zip(mine, other, strict=True)
    )


def _size(tensor: Tensor) -> float:
    if tensor.is_meta or not tensor.is_floating_point():
        return 0.0
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _close(a: Tensor, b: Tensor, scale: float) -> bool:
    if a.is_meta:
        return True
    if not a.is_floating_point():
        return torch.equal(a, b)
    rounding = _ROUNDING[a.dtype]
    return torch.allclose(a, b, rounding, rounding * scale, equal_nan=True)
