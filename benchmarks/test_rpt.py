"""Time and memory of a whole RPT step on the CPU, beside the program that keeps every probability."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.race import Race
from benchmarks.recorder import Recorder
from benchmarks.rpt import BATCH, NAMES, RptStep, check_equal
from benchmarks.settings import QUICK

ROUNDS = 2 if QUICK else 5
CHECKED = 24  # samples of the batch on which the two are compared
TIMED = 16 if QUICK else BATCH


@pytest.mark.usefixtures("same_threads_afterwards")
def test_step(benchmark, catalogue_recorder: Recorder) -> None:
    torch.set_num_threads(1)
    check_equal(RptStep("op", CHECKED), RptStep("plain", CHECKED))
    race = Race({name: RptStep(name, TIMED) for name in NAMES})
    benchmark.pedantic(race.subject, setup=race.others, rounds=ROUNDS)
    if benchmark.enabled:
        seconds = {name: [sample.wall for sample in each] for name, each in race.samples.items()}
        rows = catalogue_recorder.record_rpt("rpt_step", seconds, TIMED)
        benchmark.extra_info |= {name: row.speedup for name, row in rows.items()}


@pytest.mark.skipif(QUICK, reason="whole steps")
def test_step_of_a_usual_process(benchmark, catalogue_recorder: Recorder) -> None:
    """Where freed memory goes back to the system, as it does unless somebody sees to it."""
    command = [sys.executable, "-m", "benchmarks.rpt", str(ROUNDS)]
    found: dict[str, list[float]] = {}

    def measure() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.update(json.loads(done.stdout))

    benchmark.pedantic(measure, rounds=1)
    if benchmark.enabled:
        rows = catalogue_recorder.record_rpt("rpt_step:usual", found, BATCH)
        benchmark.extra_info |= {name: row.speedup for name, row in rows.items()}


@pytest.mark.skipif(QUICK, reason="the plain program takes 5 GB")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone can tell")
def test_memory(benchmark, catalogue_recorder: Recorder) -> None:
    found: dict[str, int] = {}

    def measure() -> None:
        for name in NAMES:
            command = [sys.executable, "-m", "benchmarks.rpt", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = int(done.stdout)

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= found
    if benchmark.enabled:
        catalogue_recorder.record_rpt_memory(found)
