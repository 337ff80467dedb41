"""The CPU kernel of another checkout beside this one's: what a change costs.

``python -m benchmarks.revisions OTHER [--rounds 5] [--csv FILE]`` runs both in turns, each round a
process of each, and prints medians in milliseconds and the ratio, this checkout's time by the other's.
OTHER is the root of a checkout with its CPU library built.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIELDS = ("round", "case", "other_ms", "this_ms", "ratio")
MEASURE = "from benchmarks.revisions import measure; measure()"


def measure() -> None:
    """Print each case's median in milliseconds, as JSON, on one thread."""
    import torch

    import lares_kernels as kernels

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = kernels.CoreConfig(
        d_model=64, n_heads=2, d_ff=256, n_layers=1, dropout=0.2, attn_dropout=0.2
    )
    core = kernels.RecurrentCore(config)
    hidden = torch.randn(64, 50, 64, requires_grad=True)
    call = {"lengths": torch.randint(5, 51, (64,)), "num_steps": 4, "seed": 1}
    items = torch.randn(20_000, 64, requires_grad=True)
    queries = torch.randn(256, 64, requires_grad=True)
    targets = torch.randint(1, len(items), (len(queries),))

    def forward() -> None:
        with torch.no_grad():
            core.eval()(hidden, **call)

    def training() -> None:
        core.train()(hidden, **call).last.sum().backward()

    def loss() -> None:
        kernels.catalogue_cross_entropy(queries, items, targets).backward()

    def top_k() -> None:
        with torch.no_grad():
            kernels.catalogue_top_k(queries, items, 10)

    cases = {
        "forward, 64 sequences, 4 steps": forward,
        "forward and backward with dropout": training,
        "catalogue loss and its gradients, 20,000 items": loss,
        "top-k of 20,000 items": top_k,
    }
    with kernels.use_backend("cpu"):
        print(json.dumps({name: median_ms(run) for name, run in cases.items()}))


def median_ms(run: Callable[[], None], calls: int = 15) -> float:
    """Return the median of some calls, in milliseconds."""
    times = []
    for _ in range(calls + 3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def run_in(checkout: Path, statement: str, environment: Mapping[str, str]) -> str:
    """Return what a statement prints in a process whose kernels are those of a checkout.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    # Kernels come from the working folder, benchmarks from here.
    program = f"import sys, lares_kernels; sys.path.insert(0, {str(ROOT)!r}); {statement}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return done.stdout


def timed(checkout: Path) -> dict[str, float]:
    """Return what :func:`measure` prints of a checkout."""
    found: dict[str, float] = json.loads(run_in(checkout, MEASURE, os.environ))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(description="The CPU kernel of another checkout beside ours.")
    parser.add_argument("other", type=lambda name: Path(name).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for number in range(options.rounds):
        other, this = timed(options.other), timed(ROOT)
        for case, before in other.items():
            ratio = this[case] / before
            rows.append((number, case, f"{before:.2f}", f"{this[case]:.2f}", f"{ratio:.3f}"))
            print(*rows[-1], sep="\t", flush=True)
    for case in dict.fromkeys(row[1] for row in rows):
        of_case = [float(row[4]) for row in rows if row[1] == case]
        print(f"{case}: median ratio {statistics.median(of_case):.3f}")
    if options.csv:
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([FIELDS, *rows])


if __name__ == "__main__":
    main()
