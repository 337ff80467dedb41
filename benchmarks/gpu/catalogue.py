"""Cross entropy over a catalogue on a GPU: ``python -m benchmarks.gpu.catalogue --out DIR``.

=============  ===================================================================================
``plain``      the matrix of scores, eager
``compiled``   the same under ``torch.compile``
``op``         ours
``liger``      Liger-Kernel's fused linear cross entropy, where ``liger_kernel`` can be imported
``cut``        Apple's cut cross-entropy as it comes, where ``cut_cross_entropy`` can be imported
``cut-exact``  the same without leaving small gradients out
=============  ===================================================================================

Each is held to float64 first, and what differs gets no time. The table is float32, as in training:
what takes half precision alone is handed a rounded copy, whose making counts. Rows go to
DIR/catalogue.csv.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases.catalogue import (
    Batch,
    CatalogueCase,
    Program,
    batch_of,
    check,
    gradients,
    plain,
    streamed,
)
from benchmarks.core.clock import clock_of
from benchmarks.core.entry import able
from benchmarks.core.race import Race
from benchmarks.gpu.card import card_name
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import CatalogueRow

BUDGET, FEWEST_ROUNDS, MOST_ROUNDS = 2.0, 5, 60
LONGEST = 600.0  # seconds to get an implementation ready
N_ITEMS = (12_000, 200_000, 1_000_000)


def liger(case: CatalogueCase, batch: Batch) -> list[Tensor]:
    """Liger-Kernel; the mean, for which its forward pass makes the gradients, too."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    queries, items = batch.queries, batch.items
    if case.precision == "bf16":
        queries, items = queries.bfloat16(), items.bfloat16()
    return gradients(LigerFusedLinearCrossEntropyLoss()(items, queries, batch.targets), batch)


def cut(case: CatalogueCase, batch: Batch, impl: str = "cce") -> list[Tensor]:
    """Cut cross-entropy, whose backward pass takes half precision alone."""
    from cut_cross_entropy import linear_cross_entropy

    queries, items = batch.queries.bfloat16(), batch.items.bfloat16()
    losses = linear_cross_entropy(queries, items, batch.targets, reduction="none", impl=impl)
    return gradients(losses, batch)


def cut_exact(case: CatalogueCase, batch: Batch) -> list[Tensor]:
    return cut(case, batch, "cce_exact")


def programs_of(precision: str, device: str, compiles: bool) -> dict[str, Program]:
    """By name, plain first."""
    found: dict[str, Program] = {"plain": plain}
    if compiles:
        found["compiled"] = torch.compile(plain, dynamic=False)
    if device == "cuda":
        if importlib.util.find_spec("liger_kernel"):
            found["liger"] = liger
        if precision == "bf16" and importlib.util.find_spec("cut_cross_entropy"):
            found |= {"cut": cut, "cut-exact": cut_exact}
    return {**found, "op": streamed}


def peak_bytes(run: Callable[[], list[Tensor]]) -> int:
    """Of device memory, beside inputs and the table's gradient."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before - result[-1].nbytes


def run(recorder: Recorder, case: CatalogueCase, device: str, compiles: bool) -> None:
    """Check, time and weigh one case; says what is left out and why."""
    batch = batch_of(case.n_items, device=device)
    programs = programs_of(case.precision, device, compiles)

    def make(name: str) -> partial[list[Tensor]]:
        check(case, programs[name], device)
        return partial(programs[name], case, batch)

    runners = able(
        {name: partial(make, name) for name in programs},
        lambda name: LONGEST,
        lambda name, why: print(
            f"{case}: {name} left out: {type(why).__name__}: {why}", flush=True
        ),
    )
    if not runners:
        return
    race = Race(runners, clock=clock_of(device))
    race.run(race.rounds_in(BUDGET, FEWEST_ROUNDS, MOST_ROUNDS))
    for name, row in recorder.record_catalogue(case, race).items():
        print(f"{case}: {name} {row.median_us:.0f} us, {row.speedup:.2f} x plain", flush=True)
    if device == "cuda":
        found = {(name, case.n_items): peak_bytes(run) for name, run in runners.items()}
        recorder.record_catalogue_memory(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.catalogue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--items", type=int, nargs="+", default=N_ITEMS, help="catalogues")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; --device cpu --items 500 runs the same path without one")
    given.out.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(given.out / "catalogue.csv", card_name(given.device), kind=CatalogueRow)
    for n_items in given.items:
        for precision in ("fp32", "bf16"):
            case = CatalogueCase("cross_entropy", n_items, precision)
            run(recorder, case, given.device, not given.no_compile)


if __name__ == "__main__":
    main()
