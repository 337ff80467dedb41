"""Allocate and address the tensors that the compiled CPU kernel reads and writes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CPU = torch.device("cpu")


def empty_tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialised CPU tensor, independent of torch's default dtype and device."""
    return torch.empty(*shape, dtype=dtype, device=_CPU)


def empty_like(tensor: Tensor) -> Tensor:
    """Return an uninitialised CPU tensor of the shape of ``tensor``."""
    return torch.empty_like(tensor, dtype=torch.float32, memory_format=torch.contiguous_format)


class Addressed:
    """Hold tensors that the library reads; addresses stay valid as long as this object lives."""

    def __init__(self) -> None:
        self.alive: list[Tensor] = []

    def address(
        self, tensor: Tensor, dtype: torch.dtype = torch.float32, name: str = "a tensor"
    ) -> int:
        """Return the address of contiguous ``dtype`` data. Raise ``ValueError`` if it has none."""
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
    """Return the tensors' addresses, or None unless all are contiguous float32 on the CPU."""
    float32 = torch.float32
    found = [
        tensor.data_ptr()
        for tensor in tensors
        if tensor.dtype is float32 and tensor.is_contiguous() and tensor.is_cpu
    ]
    return found if len(found) == len(tensors) else None
