"""Time of a whole training step on the CPU, beside the same step with a plain padded encoder."""

from __future__ import annotations

import pytest
import torch

from benchmarks.race import Race
from benchmarks.recorder import Recorder
from benchmarks.settings import QUICK
from benchmarks.spt import SptStep, check_equal
from benchmarks.spt_data import USERS

BATCH = 64 if QUICK else 1024  # as published
ROUNDS = 2 if QUICK else 5
CHECKED = 48  # samples of the batch on which the two are compared


@pytest.mark.parametrize("data", USERS)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_step(benchmark, recorder: Recorder, data: str) -> None:
    torch.set_num_threads(1)
    check_equal(SptStep(data, CHECKED, plain=False), SptStep(data, CHECKED, plain=True))
    steps = {"plain": SptStep(data, BATCH, plain=True), "op": SptStep(data, BATCH, plain=False)}
    race = Race(dict(steps))
    benchmark.pedantic(race.subject, setup=race.others, rounds=ROUNDS)
    if benchmark.enabled:
        parts = {name: step.parts[-ROUNDS:] for name, step in steps.items()}
        rows = recorder.record_steps(f"spt-{data}", BATCH, race, parts)
        benchmark.extra_info |= {row.passes: row.speedup for row in rows["op"]}
