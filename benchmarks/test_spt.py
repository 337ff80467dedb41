"""Time of a whole training step on the CPU, beside the same step with a plain padded encoder."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from benchmarks.core.entry import Runner, enter
from benchmarks.core.settings import EFFORT, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.steps.spt import SptStep, check_equal
from benchmarks.steps.spt_data import USERS

BATCH = 64 if EFFORT is QUICK else 1024  # as published
CHECKED = 48  # samples of the batch on which the two are compared
DATA = list(USERS)[:1] if EFFORT is QUICK else list(USERS)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_step(benchmark, recorder: Recorder, data: str) -> None:
    torch.set_num_threads(1)
    check_equal(SptStep(data, CHECKED, plain=False), SptStep(data, CHECKED, plain=True))
    steps: dict[str, SptStep] = {}

    def make(name: str) -> Runner:
        steps[name] = SptStep(data, BATCH, plain=name == "plain")
        return steps[name]

    makers = {name: partial(make, name) for name in ("plain", "op")}
    rounds = EFFORT.fewest_steps
    race = enter(makers, rounds, EFFORT.longest_steps)
    benchmark.pedantic(race.subject, setup=race.others, rounds=rounds)
    if benchmark.enabled:
        parts = {name: steps[name].parts[-rounds:] for name in race.runners}
        rows = recorder.record_steps(f"spt-{data}", BATCH, race, parts)
        benchmark.extra_info |= {row.passes: row.speedup for row in rows["op"]}
