"""Time and memory of a whole RPT step on the CPU, beside the program that keeps every probability."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.core.entry import Runner, enter, is_ours, number_from, reason_of
from benchmarks.core.settings import EFFORT, FULL, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import what_was_found
from benchmarks.steps.rpt import BATCH, NAMES, RptStep
from benchmarks.steps.spt import check_equal

CHECKED = 24  # samples of the batch on which the two are compared
# Plain takes 5 GB for the published batch, more than many a machine with two cores has to spare.
SAMPLES = BATCH if EFFORT is FULL else 100
COMMAND = [sys.executable, "-m", "benchmarks.steps.rpt", str(SAMPLES)]
pytestmark = pytest.mark.skipif(EFFORT is QUICK, reason="SPT's is the training step of a quick run")


@pytest.mark.usefixtures("same_threads_afterwards")
def test_step(benchmark, catalogue_recorder: Recorder) -> None:
    torch.set_num_threads(1)
    check_equal(RptStep("op", CHECKED), RptStep("plain", CHECKED))

    def make(name: str) -> Runner:
        return RptStep(name, SAMPLES)

    makers = {name: partial(make, name) for name in NAMES}
    race = enter(makers, EFFORT.fewest_steps, EFFORT.longest_steps)
    benchmark.pedantic(race.subject, setup=race.others, rounds=EFFORT.fewest_steps)
    if benchmark.enabled:
        seconds = {name: [sample.wall for sample in each] for name, each in race.samples.items()}
        rows = catalogue_recorder.record_rpt("rpt_step", seconds, SAMPLES, race.left_out)
        benchmark.extra_info |= {name: what_was_found(row) for name, row in rows.items()}


def test_step_of_a_usual_process(benchmark, catalogue_recorder: Recorder) -> None:
    """Where freed memory goes back to the system, as it does unless somebody sees to it."""
    found: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}

    def seconds_of(names: list[str]) -> dict[str, list[float]]:
        command = [*COMMAND, str(EFFORT.fewest_steps), *names]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
        return json.loads(done.stdout)

    def measure() -> None:
        try:
            found.update(seconds_of(list(NAMES)))
        except (
            subprocess.CalledProcessError
        ) as error:  # a peer's fault, unless ours fails alone, too
            left_out.update({name: reason_of(error) for name in NAMES if not is_ours(name)})
            found.update(seconds_of([name for name in NAMES if is_ours(name)]))

    benchmark.pedantic(measure, rounds=1)
    if benchmark.enabled:
        rows = catalogue_recorder.record_rpt("rpt_step:usual", found, SAMPLES, left_out)
        benchmark.extra_info |= {name: what_was_found(row) for name, row in rows.items()}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone can tell")
def test_memory(benchmark, catalogue_recorder: Recorder) -> None:
    found: dict[str, int | str] = {}

    def measure() -> None:
        found.update({name: number_from(name, [*COMMAND, name]) for name in NAMES})

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= found
    if benchmark.enabled:
        catalogue_recorder.record_rpt_memory(found, SAMPLES)
