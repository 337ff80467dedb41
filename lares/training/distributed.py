"""Exchange what the processes of a run share besides gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def shard(size: int, rank: int, n_processes: int) -> tuple[int, int]:
    """First and end of a process's contiguous part of ``size`` things."""
    return size * rank // n_processes, size * (rank + 1) // n_processes


def all_gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes (sum of B_r, ...), in rank order; parts may differ in length."""
    n_processes = dist.get_world_size()
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(n_processes)]
    dist.all_gather(sizes, size)
    longest = max(int(each) for each in sizes)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(n_processes)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(each)] for part, each in zip(parts, sizes, strict=True)])


class GatherRows(torch.autograd.Function):
    """:func:`all_gather_rows` whose backward sums the gradient over processes.

    Each process computes the whole loss from the gathered rows, so the sum is ``W`` times the loss's
    gradient; averaging over processes, as data-parallel training does, takes the ``W`` out again.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        first, _ = _own_place(len(rows), rows.device)
        ctx.place = (first, first + len(rows))
        return all_gather_rows(rows.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_all: Tensor) -> Tensor:
        summed = g_all.contiguous().clone()
        dist.all_reduce(summed)
        first, end = ctx.place
        return summed[first:end]


def _own_place(size: int, device: torch.device) -> tuple[int, int]:
    own = torch.tensor([size], device=device)
    sizes = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    first = sum(int(each) for each in sizes[: dist.get_rank()])
    return first, first + size


def gather_rows(rows: Tensor) -> Tensor:
    """Differentiable gather over processes, (B_r, d) to (B, d) in rank order."""
    gathered: Tensor = GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered
