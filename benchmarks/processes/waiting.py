"""What two threads take alone and beside other programs, by how OpenMP's threads wait for work.

``python -m benchmarks.processes.waiting [--beside 2] [--rounds 3] [--csv FILE] [--checkout OTHER]``
prints a table, of this checkout's kernels or of another's, whose CPU library is built: the op
alone, and between two layers of PyTorch's, at two sizes, medians and ninth deciles in milliseconds.
Each measurement is a process of its own, since OpenMP reads its environment once; the ways to wait
take turns. Other programs are loops that do nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.core.race import timed
from benchmarks.core.settings import ROOT
from benchmarks.processes.revisions import run_in, write_csv

# What the environment says. 3000 is what `lares` takes.
WAYS = {
    "as torch comes": {},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}
BATCHES = (8, 64)
THREADS = 2
MEASURE = "from benchmarks.processes.waiting import measure; measure()"
SECONDS = 1.5  # of each case
FIELDS = ("revision", "beside", "way", "case", "batch", "milliseconds", "p90")


def measure() -> None:
    """Print the rows of one process: case, batch, median and ninth decile in milliseconds."""
    import torch

    from lares_kernels import CoreConfig, RecurrentCore

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    core = RecurrentCore(CoreConfig(d_model=64, n_heads=2, d_ff=256, n_layers=1)).eval()
    layer = torch.nn.Linear(64, 256)
    for batch in BATCHES:
        hidden = torch.randn(batch, 50, 64)

        def op(hidden: torch.Tensor = hidden) -> None:
            core(hidden, num_steps=4, seed=1)

        def between(hidden: torch.Tensor = hidden) -> None:
            torch.relu(layer(hidden))
            core(hidden, num_steps=4, seed=1)
            torch.softmax(layer(hidden), -1)

        with torch.no_grad():
            for case, run in (("the op", op), ("between PyTorch's layers", between)):
                times = sorted(seconds_of_calls(run))
                median, p90 = statistics.median(times), times[int(0.9 * len(times))]
                print(case, batch, f"{1e3 * median:.3f}", f"{1e3 * p90:.3f}", sep=",")


def seconds_of_calls(run: Callable[[], None]) -> list[float]:
    """Return the seconds of every call within some time."""
    for _ in range(5):
        run()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        times.append(timed(run).wall)
    return times


@contextmanager
def others(number: int) -> Iterator[None]:
    """Keep processors busy with so many other programs."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(description="Two threads, by how OpenMP's wait.")
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 2], help="other programs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    options = parser.parse_args(arguments)
    rows = []
    # Whatever the environment says of waiting already is not measured.
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    git = ["git", "-C", options.checkout, "rev-parse", "--short", "HEAD"]
    revision = subprocess.check_output(git, text=True, errors="replace").strip()
    for beside in options.beside:
        with others(beside):
            for _ in range(options.rounds):
                for way, says in WAYS.items():
                    printed = run_in(options.checkout, MEASURE, plain | says)
                    for line in printed.splitlines():
                        rows.append((revision, str(beside), way, *line.split(",")))
                        print(*rows[-1], sep="\t", flush=True)
    if options.csv:
        write_csv(options.csv, [FIELDS, *rows])


if __name__ == "__main__":
    main()
