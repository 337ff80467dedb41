"""Tensors that the compiled CPU kernel reads and writes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CPU = torch.device("cpu")


def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor for the library to write to, whatever type and device new tensors have by default."""
    return torch.empty(*shape, dtype=dtype, device=_CPU)


def room_like(tensor: Tensor) -> Tensor:
    """The same, of the shape of a tensor on the CPU."""
    return torch.empty_like(tensor, dtype=torch.float32, memory_format=torch.contiguous_format)


class Addressed:
    """Tensors that the library reads; their addresses are good for as long as this object is kept."""

    def __init__(self) -> None:
        self.alive: list[Tensor] = []

    def address(
        self, tensor: Tensor, dtype: torch.dtype = torch.float32, name: str = "a tensor"
    ) -> int:
        """Where ``tensor`` lies as contiguous ``dtype``; ``ValueError`` where it lies nowhere."""
        if not tensor.data_ptr() and tensor.numel():
            raise ValueError(
                f"{name} has no memory: its storage was freed, as sharding does between calls; give "
                "the op tensors that are gathered"
            )
        if tensor.dtype is not dtype or not tensor.is_contiguous():
            tensor = tensor.to(dtype).contiguous()
        self.alive.append(tensor)
        return tensor.data_ptr()


def float32_addresses(tensors: Sequence[Tensor]) -> list[int] | None:
    """Where tensors lie, if all are contiguous float32 on the CPU, as the library reads them."""
    float32 = torch.float32
    found = [
        tensor.data_ptr()
        for tensor in tensors
        if tensor.dtype is float32 and tensor.is_contiguous() and tensor.is_cpu
    ]
    return found if len(found) == len(tensors) else None
