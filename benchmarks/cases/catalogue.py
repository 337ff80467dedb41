"""The catalogue ops beside plain PyTorch: cases, programs, equivalence, memory.

``python -m benchmarks.cases.catalogue IMPLEMENTATION N_ITEMS`` prints the bytes that cross entropy and
its gradients take beside the table and its own gradient, in a process where nothing else has run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

import lares_kernels as lk
from benchmarks.cases.equality import YARDSTICKS
from benchmarks.core.memory import peak_growth

ROWS, WIDTH, K = 1024, 64, 10
CHECKED_ROWS = 32  # a dense program in float64 must fit, too


@dataclass(frozen=True)
class CatalogueCase:
    """One op on one catalogue.

    Attributes:
        op: ``cross_entropy`` (with its gradients), ``ranks`` or ``top_k``.
        n_items: ``V``.
        precision: of the products, ``fp32`` or ``bf16``.
        threads: of torch.
    """

    op: str
    n_items: int
    precision: str = "fp32"
    threads: int = 1

    @property
    def passes(self) -> str:
        return "forward+backward" if self.op == "cross_entropy" else "forward"

    @property
    def products(self) -> int:
        """Products with the whole table that cannot be done without."""
        return 3 if self.op == "cross_entropy" else 1

    def __str__(self) -> str:
        return f"{self.op}-{self.n_items}-{self.precision}-{self.threads}t"


SMALL, LARGE = 12_000, 200_000
ALL_TIMED = [
    *(CatalogueCase("cross_entropy", n, p) for n in (SMALL, LARGE) for p in ("fp32", "bf16")),
    *(CatalogueCase(op, n) for op in ("ranks", "top_k") for n in (SMALL, LARGE)),
    *(CatalogueCase("cross_entropy", n, threads=2) for n in (SMALL, LARGE)),
]
# Emulated bf16 takes minutes on the large table: a default run has it with the small one.
ONLY_FULL = (
    CatalogueCase("cross_entropy", LARGE, "bf16"),
    CatalogueCase("cross_entropy", LARGE, threads=2),
)
QUICK = (CatalogueCase("cross_entropy", SMALL), CatalogueCase("top_k", SMALL))
MEMORY = [("plain", LARGE), ("op:cpu", LARGE)]
MEMORY_FULL = [*MEMORY, ("op:cpu", 1_000_000)]


def timed_cases(effort: str) -> list[CatalogueCase]:
    """The cases of a run that is ``quick``, ``default`` or ``full``."""
    if effort == "quick":
        return list(QUICK)
    return [case for case in ALL_TIMED if effort == "full" or case not in ONLY_FULL]


@dataclass(frozen=True)
class Batch:
    """Queries (R, d), items (V, d), targets (R,)."""

    queries: Tensor
    items: Tensor
    targets: Tensor

    def first(self, rows: int, dtype: torch.dtype) -> Batch:
        """Its first rows against the whole catalogue."""
        return Batch(
            self.queries.detach()[:rows].to(dtype).requires_grad_(),
            self.items.detach().to(dtype).requires_grad_(),
            self.targets[:rows],
        )


Program = Callable[[CatalogueCase, Batch], list[Tensor]]


@cache
def batch_of(n_items: int, rows: int = ROWS, device: str = "cpu") -> Batch:
    """Queries as a LayerNorm leaves them, items as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(rows, WIDTH, generator=generator).to(device).requires_grad_(),
        torch.randn(n_items, WIDTH, generator=generator).mul_(0.3).to(device).requires_grad_(),
        torch.randint(n_items, (rows,), generator=generator).to(device),
    )


def plain_scores(batch: Batch, precision: str) -> Tensor:
    if precision == "bf16":
        return batch.queries.bfloat16() @ batch.items.bfloat16().mT
    return batch.queries @ batch.items.mT


def gradients(losses: Tensor, batch: Batch) -> list[Tensor]:
    """Losses (R,), or their mean, and the gradients of the mean."""
    return [losses.detach(), *torch.autograd.grad(losses.mean(), [batch.queries, batch.items])]


def plain(case: CatalogueCase, batch: Batch) -> list[Tensor]:
    """With the matrix of scores."""
    if case.op == "cross_entropy":
        scores = plain_scores(batch, case.precision)
        if case.precision == "bf16":
            scores = scores.float()
        losses = functional.cross_entropy(scores, batch.targets, reduction="none")
        return gradients(losses, batch)
    with torch.no_grad():
        scores = plain_scores(batch, case.precision)
        if case.op == "ranks":
            return [(scores >= scores.gather(1, batch.targets[:, None])).sum(dim=1) - 1]
        return list(scores.topk(K, dim=1))


def streamed(case: CatalogueCase, batch: Batch) -> list[Tensor]:
    """The op."""
    if case.op == "cross_entropy":
        given = (batch.queries, batch.items, batch.targets)
        losses = lk.catalogue_cross_entropy(*given, reduction="none", precision=case.precision)
        return gradients(losses, batch)
    with torch.no_grad():
        if case.op == "ranks":
            return [lk.catalogue_ranks(batch.queries, batch.items, batch.targets)]
        return list(lk.catalogue_top_k(batch.queries, batch.items, K))


def programs() -> dict[str, Program]:
    """By name, plain first; the op where its kernel can run."""
    found: dict[str, Program] = {"plain": plain}
    if lk.available_backends()["cpu"] == "usable":
        found["op:cpu"] = streamed
    return found


def check(case: CatalogueCase, program: Program = streamed, device: str = "cpu") -> None:
    """Raise ``AssertionError`` unless a program is as right as plain PyTorch, by float64.

    Losses are held row by row: in their mean, errors cancel by luck.
    """
    batch = batch_of(case.n_items, device=device)
    exact = plain(replace(case, precision="fp32"), batch.first(CHECKED_ROWS, torch.float64))
    single = batch.first(CHECKED_ROWS, torch.float32)
    theirs, mine = plain(case, single), program(case, single)
    if case.op == "cross_entropy":
        if mine[0].dim() == 0:  # a program that gives the mean alone
            allowed = float((theirs[0].double() - exact[0]).abs().mean())
            exact[0], theirs[0] = exact[0].mean(), exact[0].mean() + allowed
        for wanted, yardstick, found in zip(exact, theirs, mine, strict=True):
            allowed = float((yardstick.double() - wanted).norm())
            floor = 1e-6 * float(wanted.norm())
            assert float((found.double() - wanted).norm()) <= YARDSTICKS * allowed + floor, case
    elif case.op == "ranks":
        # Rounding may exchange neighbours.
        assert float((mine[0] - exact[0]).abs().double().mean()) < 1.0, case
    else:
        torch.testing.assert_close(mine[0].double(), exact[0], rtol=1e-5, atol=1e-5)
        assert float((mine[1] == exact[1]).double().mean()) > 0.99, case


def bytes_taken(name: str, n_items: int) -> int:
    """By cross entropy and its gradients, beside the table and the table's gradient."""
    case = CatalogueCase("cross_entropy", n_items)
    run = programs()[name]
    run(case, batch_of(300, 8))  # what a first call loads
    batch = batch_of(n_items)
    kept: list[Tensor] = []
    grown = peak_growth(lambda: kept.extend(run(case, batch)))
    return grown - kept[2].nbytes


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(bytes_taken(sys.argv[1], int(sys.argv[2])))
