"""Lay several arrays out in one, so that they cost one allocation and one launch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lares_kernels.gpu.scratch import zeroed

_ALIGNED = 32  # numbers of 4 bytes: kernels are compiled for arrays that begin at 128


def aligned(numbers: int) -> int:
    """Round a count of 4-byte ``numbers`` up to where the next array may begin."""
    return -(-numbers // _ALIGNED) * _ALIGNED


def zeros_at_once(device: torch.device, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Allocate zeros of every shape, float32, in one array and by one launch; each begins at 128
    bytes."""
    sizes = [math.prod(shape) for shape in shapes]
    whole = zeroed(sum(map(aligned, sizes)), dtype=torch.float32, device=device)
    return parts_of(whole, shapes)


def parts_of(whole: Tensor, shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    """Return views of consecutive arrays in ``whole``, of 4-byte numbers."""
    parts = whole.split([aligned(math.prod(shape)) for shape in shapes])
    return [part[: math.prod(shape)].view(shape) for part, shape in zip(parts, shapes, strict=True)]
