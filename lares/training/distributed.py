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
    return _gathered(rows)[0]


def _gathered(rows: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all processes, and the place of this one's first among them."""
    n_processes = dist.get_world_size()
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(n_processes)]
    dist.all_gather(sizes, size)
    counts = [int(each) for each in sizes]
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(n_processes)]
    dist.all_gather(parts, padded)
    together = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return together, sum(counts[: dist.get_rank()])


class GatherRows(torch.autograd.Function):
    """:func:`all_gather_rows` whose backward sums the gradient over processes.

    Each process computes the whole loss from the gathered rows, so the sum is ``W`` times the loss's
    gradient; averaging over processes, as data-parallel training does, takes the ``W`` out again.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        together, first = _gathered(rows.detach())
        ctx.place = (first, first + len(rows))
        return together

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_all: Tensor) -> Tensor:
        summed = g_all.contiguous().clone()
        dist.all_reduce(summed)
        first, end = ctx.place
        return summed[first:end]


def gather_rows(rows: Tensor) -> Tensor:
    """Differentiable gather over processes, (B_r, d) to (B, d) in rank order."""
    gathered: Tensor = GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered
