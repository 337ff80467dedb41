"""Allocate memory that kernels write before anybody reads it.

Under deterministic algorithms torch fills new memory (``torch.utils.deterministic``), so that what a
program reads by mistake is the same every time. For memory that is written first, that wastes a launch
and a pass over memory, a gigabyte of it in backward. The switch is global: a thread that turned it off
for itself would do so for others, and two could leave it off. So memory is allocated without
``torch.empty``, and no switch is touched; torch.compile does not see it, since it runs inside
operators. Memory that is not written in full belongs in ``torch.empty``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor


def unfilled(*shape: int | Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``torch.empty(*shape)``, contiguous, never filled."""
    sizes: Any = shape[0] if isinstance(shape[0], Sequence) else shape
    take = _taken if torch.are_deterministic_algorithms_enabled() else torch.empty
    return take(sizes, dtype=dtype, device=device)


def unfilled_like(tensor: Tensor) -> Tensor:
    """Return :func:`unfilled` of a tensor's shape, type and device."""
    return unfilled(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def zeroed(*shape: int | Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``torch.zeros(*shape)``, filled once, even under deterministic algorithms."""
    return unfilled(*shape, dtype=dtype, device=device).zero_()


def _taken(sizes: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    memory = torch.UntypedStorage(prod(sizes) * dtype.itemsize, device=device)
    taken: Any = torch.empty(0, dtype=dtype, device=device)
    return taken.set_(memory, 0, sizes)  # type: ignore[no-any-return]
