"""Time and memory of the catalogue ops on the CPU, beside plain PyTorch with its matrix of scores."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.cases.catalogue import (
    MEMORY,
    MEMORY_FULL,
    CatalogueCase,
    batch_of,
    check,
    programs,
    timed_cases,
)
from benchmarks.core.entry import Runner, enter, is_ours, number_from
from benchmarks.core.machine import usable_cpus
from benchmarks.core.settings import EFFORT, FULL, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import what_was_found


@pytest.mark.parametrize("case", timed_cases(EFFORT.name), ids=str)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_time(benchmark, catalogue_recorder: Recorder, case: CatalogueCase) -> None:
    if case.threads > usable_cpus():
        pytest.skip(f"{case.threads} threads, but {usable_cpus()} processors to run on")
    torch.set_num_threads(case.threads)
    batch = batch_of(case.n_items)
    known = programs()

    def make(name: str) -> Runner:
        if is_ours(name):  # plain is the yardstick
            check(case, known[name])
        return partial(known[name], case, batch)

    makers = {name: partial(make, name) for name in known}
    race = enter(makers, EFFORT.fewest, EFFORT.longest)
    if race.runners:
        rounds = race.rounds_in(EFFORT.budget, EFFORT.fewest, EFFORT.most)
        benchmark.pedantic(race.subject, setup=race.others, rounds=rounds)
    if benchmark.enabled:
        for name, row in catalogue_recorder.record_catalogue(case, race).items():
            benchmark.extra_info[name] = what_was_found(row)


@pytest.mark.skipif(EFFORT is QUICK, reason="large catalogues")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone can tell")
def test_memory(benchmark, catalogue_recorder: Recorder) -> None:
    found: dict[tuple[str, int], int | str] = {}

    def measure() -> None:
        for name, n_items in MEMORY_FULL if EFFORT is FULL else MEMORY:
            command = [sys.executable, "-m", "benchmarks.cases.catalogue", name, str(n_items)]
            found[name, n_items] = number_from(name, command)

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= {f"{name}-{n}": taken for (name, n), taken in found.items()}
    if benchmark.enabled:
        catalogue_recorder.record_catalogue_memory(found)
