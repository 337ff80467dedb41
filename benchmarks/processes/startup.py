"""Measures what start-up takes: ``python -m benchmarks.processes.startup [FOLDER ...]``.

Each command is run in a process of its own, in every folder in turn (other checkouts, say; by default
this one), several times over; the least seconds are printed, from start to end and of the processor.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

RUNS = 5
COMMANDS = (
    "-c 'import torch'",
    "-c 'import torch, lares_kernels'",
    "-c 'import lares_kernels.config, lares_kernels.cpu_library'",
    "-m lares --help",
    *(
        f"-m lares {name} --help"
        for name in ("demo", "train", "posttrain", "evaluate", "recommend")
    ),
    *(
        f"-m lares {name} --help"
        for name in ("data", "data get", "data info", "data embed", "doctor")
    ),
    "-m lares tarin",
    "-m lares train x --trainer.patiense=3",
    "-m lares train x --trainer.patience=0",
    "-m lares posttrain",
    "-m lares evaluate a b --ks=0",
    "-m lares recommend x --history=3 --k=0",
    "-m lares data info x --core=-1",
)


def seconds(command: str, folder: str) -> tuple[float, float]:
    """Measure one run: from start to end, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(f"exec {sys.executable} {command}", shell=True, cwd=folder, capture_output=True)
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken, own


def main() -> None:
    """Print a row for every command."""
    folders = sys.argv[1:] or ["."]
    print("| python ... | " + " | ".join(folders) + " |")
    print("|---|" + "---|" * len(folders))
    for command in COMMANDS:
        rows = [[seconds(command, folder) for folder in folders] for _ in range(RUNS)]
        cells = (
            f"{min(taken for taken, _ in of_folder):.2f} ({min(own for _, own in of_folder):.2f})"
            for of_folder in zip(*rows, strict=True)
        )
        print(f"| `{command}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
