"""Time and memory of the recurrence on the CPU: ``pytest benchmarks/ --benchmark-only``.

The table that pytest prints shows the op; the rows of everything it raced against go to the results
file, and into each benchmark's ``extra_info``.
"""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import torch

from benchmarks.cases.equality import check
from benchmarks.cases.implementations import build, names_of, op_of
from benchmarks.cases.op import MEMORY, Case, timed_cases
from benchmarks.cases.problem import problem_of
from benchmarks.core.entry import Runner, enter
from benchmarks.core.machine import instruction_sets, usable_cpus
from benchmarks.core.memory import bytes_saved
from benchmarks.core.settings import EFFORT, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import what_was_found
from lares_kernels.binding.cpu_library import use_instruction_set


@pytest.mark.parametrize("case", timed_cases(EFFORT.name), ids=str)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_time(benchmark, recorder: Recorder, case: Case) -> None:
    if case.threads > usable_cpus():
        pytest.skip(f"{case.threads} threads, but {usable_cpus()} processors to run on")
    if case.instruction_set not in ("", *instruction_sets()):
        pytest.skip(f"the CPU kernel cannot run on {case.instruction_set} here")
    torch.set_num_threads(case.threads)
    with contextlib.ExitStack() as held:
        if case.instruction_set:
            held.enter_context(use_instruction_set(case.instruction_set))
        time_case(benchmark, recorder, case)


def time_case(benchmark, recorder: Recorder, case: Case) -> None:
    problem = problem_of(case)

    def make(name: str) -> Runner:
        check(name, case)
        program = build(name, problem, case.precision, case.backward)
        return partial(problem.evaluate, program, case.backward)

    makers = {name: partial(make, name) for name in names_of(case)}
    race = enter(makers, EFFORT.fewest, EFFORT.longest)
    rounds = race.rounds_in(EFFORT.budget, EFFORT.fewest, EFFORT.most)
    benchmark.pedantic(race.subject, setup=race.others, rounds=rounds)
    if benchmark.enabled:
        for name, row in recorder.record_race(case, race).items():
            benchmark.extra_info[name] = what_was_found(row)


@pytest.mark.skipif(EFFORT is QUICK, reason="counts, and is not timed")
def test_memory(benchmark, recorder: Recorder) -> None:
    problem = problem_of(MEMORY)
    counts: dict[str, int] = {}

    def count() -> None:
        for name in ("plain", op_of(MEMORY)):
            program = build(name, problem, MEMORY.precision, dropout=True)
            there_anyway = [problem.hidden, *problem.parameters.values()]
            counts[name] = bytes_saved(lambda program=program: program(None), there_anyway)

    benchmark.pedantic(count, rounds=1)
    benchmark.extra_info |= counts
    if benchmark.enabled:
        recorder.record_memory(MEMORY, counts)
