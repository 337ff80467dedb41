"""The CPU kernel of another checkout beside this one's: what a change costs.

``python -m benchmarks.processes.revisions OTHER [--rounds 5] [--csv FILE]`` runs both in turns,
each round a process of each, and prints medians in milliseconds and the ratio, this checkout's time
by the other's. OTHER is the root of a checkout with its CPU library built.

With ``--one-process`` this checkout's Python runs both libraries, call by call in turns and on the
same arrays, where their C interface is the same: processes differ by some 3% among themselves, medians
of pairs of calls by one.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from benchmarks.core.process import printed_by
from benchmarks.core.race import timed
from benchmarks.core.settings import ROOT

FIELDS = ("round", "case", "other_ms", "this_ms", "ratio")
LIBRARY = Path("lares_kernels", "liblares_cpu.so")
MEASURE = "from benchmarks.processes.revisions import measure; measure()"


def make_cases() -> dict[str, Callable[[], None]]:
    """Return what is timed, by name, on one thread."""
    import torch

    import lares_kernels as kernels
    from lares import LaresConfig, LaresModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = kernels.CoreConfig(64, 2, 256, 1, dropout=0.2, attn_dropout=0.2)
    core = kernels.RecurrentCore(config)
    hidden = torch.randn(64, 50, 64, requires_grad=True)
    call = {"lengths": torch.randint(5, 51, (64,)), "num_steps": 4, "seed": 1}
    items = torch.randn(20_000, 64, requires_grad=True)
    queries = torch.randn(256, 64, requires_grad=True)
    targets = torch.randint(1, len(items), (len(queries),))
    model = LaresModel(LaresConfig(n_items=5001, max_length=50))
    histories = [
        torch.randint(1, 5001, (length,)).tolist()
        for length in torch.randint(3, 51, (256,)).tolist()
    ]

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

    return {
        "forward, 64 sequences, 4 steps": forward,
        "forward and backward with dropout": training,
        "catalogue loss and its gradients, 20,000 items": loss,
        "top-k of 20,000 items": top_k,
        "recommend for one history of 8 items": lambda: model.recommend([list(range(1, 9))]),
        "recommend for 256 histories": lambda: model.recommend(histories),
    }


def measure() -> None:
    """Print each case's median in milliseconds, as JSON."""
    import lares_kernels as kernels

    with kernels.use_backend("cpu"):
        print(json.dumps({name: median_ms(run) for name, run in make_cases().items()}))


def measure_in_turns(library: Path, rounds: int) -> Iterator[dict[str, tuple[float, float]]]:
    """Yield for each round each case's milliseconds, of the library and of ours: the best of three.

    Raises:
        SystemExit: the library is not there, or its interface is another.
    """
    import lares_kernels as kernels
    from lares_kernels.binding import cpu_library
    from lares_kernels.cpu import repeated_calls

    other = cpu_library.open_library(library, "its C interface is another than this checkout's")
    if isinstance(other, str):
        raise SystemExit(f"{library}: {other}")
    libraries = (other, cpu_library.loaded())
    cases = make_cases()

    def best_ms(library: ctypes.CDLL, run: Callable[[], None]) -> float:
        repeated_calls._kept.clear()  # they hold a library's functions
        with patch.object(cpu_library, "load", lambda: library):
            run()
            return min(median_ms(run, calls=1, before=0) for _ in range(3))

    with kernels.use_backend("cpu"):
        for number in range(rounds):
            found = {}
            for name, run in cases.items():
                turns = libraries if number % 2 else libraries[::-1]
                times = {id(each): best_ms(each, run) for each in turns}
                found[name] = (times[id(other)], times[id(libraries[1])])
            yield found


def median_ms(run: Callable[[], None], calls: int = 15, before: int = 3) -> float:
    """Return the median of some calls, in milliseconds, after some that do not count."""
    times = [timed(run).wall for _ in range(calls + before)]
    return 1e3 * statistics.median(times[before:])


def run_in(checkout: Path, statement: str, environment: Mapping[str, str]) -> str:
    """Return what a statement prints in a process whose kernels are those of a checkout.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    # Kernels and models come from the working folder, benchmarks from here.
    program = f"import sys, lares, lares_kernels; sys.path.insert(0, {str(ROOT)!r}); {statement}"
    return printed_by([sys.executable, "-c", program], None, checkout, environment)


def measured(checkout: Path) -> dict[str, float]:
    """Return what :func:`measure` prints of a checkout."""
    found: dict[str, float] = json.loads(run_in(checkout, MEASURE, os.environ))
    return found


def rounds_of(options: argparse.Namespace) -> Iterator[dict[str, tuple[float, float]]]:
    """Yield each round's milliseconds by case, the other's and ours."""
    if options.one_process:
        yield from measure_in_turns(options.other / LIBRARY, options.rounds)
        return
    for _ in range(options.rounds):
        other, this = measured(options.other), measured(ROOT)
        yield {case: (before, this[case]) for case, before in other.items()}


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(description="The CPU kernel of another checkout beside ours.")
    parser.add_argument("other", type=lambda name: Path(name).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for number, found in enumerate(rounds_of(options)):
        for case, (other, this) in found.items():
            rows.append((number, case, f"{other:.3f}", f"{this:.3f}", f"{this / other:.3f}"))
            print(*rows[-1], sep="\t", flush=True)
    medians: list[float] = []
    for case in dict.fromkeys(row[1] for row in rows):
        of_case = [float(row[4]) for row in rows if row[1] == case]
        medians.append(statistics.median(of_case))
        print(f"{case}: median ratio {medians[-1]:.3f}")
    print(f"geometric mean {statistics.geometric_mean(medians):.3f}")
    if options.csv:
        write_csv(options.csv, [FIELDS, *rows])


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a file of rows, the names of columns first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
