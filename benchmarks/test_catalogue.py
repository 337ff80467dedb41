"""Time and memory of the catalogue ops on the CPU, beside plain PyTorch with its matrix of scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.catalogue import MEMORY, TIMED, CatalogueCase, batch_of, check, programs
from benchmarks.machine import usable_cpus
from benchmarks.race import Race
from benchmarks.recorder import Recorder
from benchmarks.settings import QUICK

BUDGET = 2.0  # seconds of rounds a case, if the fewest rounds take no longer
FEWEST_ROUNDS, MOST_ROUNDS = (2, 2) if QUICK else (3, 50)
LARGEST = 12_000 if QUICK else 10**9


@pytest.mark.parametrize("case", TIMED, ids=str)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_time(benchmark, catalogue_recorder: Recorder, case: CatalogueCase) -> None:
    if case.threads > usable_cpus():
        pytest.skip(f"{case.threads} threads, but {usable_cpus()} processors to run on")
    if case.n_items > LARGEST:
        pytest.skip("too large for a quick run")
    torch.set_num_threads(case.threads)
    check(case)
    batch = batch_of(case.n_items)
    race = Race({name: lambda run=run: run(case, batch) for name, run in programs().items()})
    rounds = race.rounds_in(BUDGET, FEWEST_ROUNDS, MOST_ROUNDS)
    benchmark.pedantic(race.subject, setup=race.others, rounds=rounds)
    if benchmark.enabled:
        for name, row in catalogue_recorder.record_catalogue(case, race).items():
            benchmark.extra_info[name] = {"median_us": row.median_us, "speedup": row.speedup}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone can tell")
def test_memory(benchmark, catalogue_recorder: Recorder) -> None:
    found: dict[tuple[str, int], int] = {}

    def measure() -> None:
        for name, n_items in MEMORY:
            if n_items > LARGEST:
                continue
            command = [sys.executable, "-m", "benchmarks.catalogue", name, str(n_items)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name, n_items] = int(done.stdout)

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= {f"{name}-{n}": taken for (name, n), taken in found.items()}
    if benchmark.enabled:
        catalogue_recorder.record_catalogue_memory(found)
