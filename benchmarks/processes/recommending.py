"""How many users a second get their lists in a file: ``lares recommend --users all --output FILE``.

``python -m benchmarks.processes.recommending [--items 12000,1000000] [--users 100000,2000]
[--threads 2] [--form parquet] [--csv FILE] [--profile]`` draws a model of the published size and
histories of 8 items, and writes everybody's list of 10, each case in a process of its own, after a
first few users. The CSV file gets a row a case; ``--profile`` prints where Python's time goes instead.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.core.machine import machine_name, revision
from benchmarks.core.process import environment_here
from lares import LaresConfig, LaresModel
from lares.cli.waiting import LOOKS
from lares.data.vocabulary import Vocabulary
from lares.recommender.asked import Asked, ItemLists
from lares.recommender.bulk import write_lists
from lares.recommender.ranked import BATCH, How, ListMaker

FIELDS = (
    *("items", "users", "history", "k", "form", "threads", "seconds", "users_per_second"),
    *("peak_mb", "command", "revision", "date", "machine"),
)
_HISTORY, _K, _SEED = 8, 10, 2025
_MODULE = "benchmarks.processes.recommending"


def drawn(items: int, users: int) -> tuple[ListMaker, Asked]:
    """Return a model of so many items that makes lists, and so many users with drawn histories."""
    torch.manual_seed(_SEED)
    vocabulary = Vocabulary(np.arange(1, items + 1))
    model = LaresModel(LaresConfig(n_items=items + 1), vocabulary=vocabulary).eval()
    generator = np.random.default_rng(_SEED)
    histories = generator.integers(1, items + 1, size=users * _HISTORY).astype(np.int32)
    starts = np.arange(users, dtype=np.int64) * _HISTORY
    asked = Asked(pa.array(np.arange(users)), histories, starts, starts + _HISTORY, None)
    how = How(_K, True, ItemLists(None, None), None, None, None)
    return ListMaker(model, vocabulary, how), asked


def measured(items: int, users: int, form: str) -> dict[str, Any]:
    """Return how long the lists of so many users take, and the most memory of this process."""
    maker, asked = drawn(items, users)
    with tempfile.TemporaryDirectory() as folder:
        write_lists(Path(folder) / f"first.{form}", maker, asked.part(0, BATCH), progress=False)
        start = time.perf_counter()
        write_lists(Path(folder) / f"lists.{form}", maker, asked, progress=False)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "seconds": round(seconds, 3),
        "users_per_second": round(users / seconds),
        "peak_mb": peak,
    }


def profile(items: int, users: int, form: str) -> None:
    """Print which functions of Python take the time."""
    import cProfile
    import pstats

    maker, asked = drawn(items, users)
    with tempfile.TemporaryDirectory() as folder, cProfile.Profile() as profiler:
        write_lists(Path(folder) / f"lists.{form}", maker, asked, progress=False)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--items", default="12000,1000000")
    parser.add_argument("--users", default="100000,2000")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--form", default="parquet")
    parser.add_argument("--csv", type=Path, default=Path("recommending.csv"))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--one", action="store_true", help="Measure one case here, and print it.")
    options = parser.parse_args(arguments)
    cases = [
        (int(items), int(users))
        for items, users in zip(options.items.split(","), options.users.split(","), strict=True)
    ]
    if options.one or options.profile:
        torch.set_num_threads(options.threads)
        for items, users in cases:
            if options.profile:
                profile(items, users, options.form)
            else:
                print(json.dumps(measured(items, users, options.form)))
        return
    common = {
        **{"history": _HISTORY, "k": _K, "form": options.form, "threads": options.threads},
        "revision": revision(),
        "date": datetime.date.today().isoformat(),
        "machine": machine_name(),
    }
    new = not options.csv.exists()
    with options.csv.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        for items, users in cases:
            own = ["-m", _MODULE, f"--items={items}", f"--users={users}"]
            own += [f"--threads={options.threads}", f"--form={options.form}"]
            done = subprocess.run(
                [sys.executable, *own, "--one"],
                env={**environment_here(), "GOMP_SPINCOUNT": LOOKS},  # as commands have it
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            found = json.loads(done.stdout.splitlines()[-1])
            row = {"items": items, "users": users, "command": shlex.join(["python", *own])}
            writer.writerow(common | row | found)
            file.flush()
            print(row | found, flush=True)


if __name__ == "__main__":
    main()
