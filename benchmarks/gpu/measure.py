"""The op on a GPU: ``python -m benchmarks.gpu --out DIR``.

What only a card can show comes first (:mod:`benchmarks.gpu.checks`), then tests that need a GPU (and
compute-sanitizer, where it is installed), then the card's own speed, then the cases with the most
telling first, each raced against what one would run without the op, then profiles, plots and the goals.
All of it ends within ``--minutes``; rows are written as they come, to DIR/rows.csv and
benchmarks/results/gpu.csv, so what was measured survives a stop. What differs from float64 gets no row.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import gpu as gpu_cases
from benchmarks.cases.equality import check
from benchmarks.cases.gpu_peers import COMPILED
from benchmarks.cases.implementations import build, call_of, is_op, names_of, op_of, weights_of
from benchmarks.cases.op import Case
from benchmarks.cases.problem import problem_of
from benchmarks.core.clock import GRAPH, clock_of, products
from benchmarks.core.entry import able, reason_of
from benchmarks.core.race import Race
from benchmarks.core.settings import GPU_PUBLISHED
from benchmarks.gpu.card import Card, card_name, measure_card
from benchmarks.gpu.checks import run_checks
from benchmarks.gpu.first_call import first_call
from benchmarks.gpu.sanitizer import watch
from benchmarks.gpu.tests import gpu_tests, run_tests
from benchmarks.report.gpu_goals import verdicts
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import GpuRow, read_rows
from benchmarks.report.sections import write_report
from benchmarks.steps.spt import SptStep, check_equal

CHECKS_SHARE, TESTS_SHARE, SANITIZER_SHARE = 0.35, 0.25, 0.1  # of the time, at most
RESERVE = 15.0  # seconds kept for the report
LONGEST_CHECK, LONGEST_COMPILE = 30.0, 75.0  # seconds to get an implementation ready
RACE_BUDGET, FEWEST_ROUNDS, MOST_ROUNDS = 1.2, 5, 60
SPT_DATA, SPT_BATCH, SPT_CHECKED, SPT_ROUNDS = "beauty14", 1024, 48, 8
PROFILED_CALLS = 5
_PROGRAMS = ("op:reference", "op:equations")


class Run:
    """One run of everything.

    Args:
        out: folder for rows, profiles, plots and the report.
        minutes: that it may take.
        device: type of the device.
        quick: tiny shapes, two rounds.
        compiles: whether ``torch.compile`` takes part.
    """

    def __init__(self, out: Path, minutes: float, device: str, quick: bool, compiles: bool) -> None:
        self.out, self.device, self.quick, self.compiles = out, device, quick, compiles
        self.began, self.seconds = time.monotonic(), 60.0 * minutes
        self.broken: list[str] = []
        out.mkdir(parents=True, exist_ok=True)
        self.rows_file = out / "rows.csv"
        published = device == "cuda" and not quick and os.access(GPU_PUBLISHED.parent, os.W_OK)
        self.recorder = Recorder(
            self.rows_file, card_name(device), [GPU_PUBLISHED] if published else []
        )
        if importlib.util.find_spec("triton") is not None:
            self.recorder.run["torch"] += f" triton {importlib.import_module('triton').__version__}"

    @property
    def left(self) -> float:
        """Seconds left for measuring."""
        return self.seconds - RESERVE - (time.monotonic() - self.began)

    def say(self, text: str) -> None:
        """A line with the seconds since the start, on the terminal and in DIR/log.txt."""
        line = f"[{time.monotonic() - self.began:5.0f} s] {text}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def measure(self) -> Card:
        """The card's own speed, in rows too."""
        card = measure_card(self.device, self.quick)
        record, launch = self.recorder.record_speed, card.launch
        for precision, rate in card.rates.items():
            record("peak", "matmul", precision, gflops=1e-9 * rate)
        record("bandwidth", "copy", "fp32", gbytes=1e-9 * card.bandwidth)
        times = {"wall_us": 1e6 * launch.wall, "host_us": 1e6 * (launch.host or launch.wall)}
        record("launch", "add", "fp32", **times)
        rates = ", ".join(f"{1e-12 * rate:.3g} {name}" for name, rate in card.rates.items())
        self.say(f"copy {1e-9 * card.bandwidth:.0f} GB/s; TFLOP/s {rates}")
        return card

    def race(self, case: Case, card: Card) -> None:
        """Check, time and record one case."""
        case = replace(gpu_cases.quick(case) if self.quick else case, device=self.device)
        began = time.monotonic()
        with products(case.precision):
            problem = problem_of(case)

            def make(name: str) -> Callable[[], object]:
                check(name, case)
                program = build(name, problem, case.precision, case.drops)
                return call_of(name, problem, program, case.backward)

            runners = able(
                {name: partial(make, name) for name in self.contenders(case)},
                lambda name: self.within(LONGEST_COMPILE if compiles(name) else LONGEST_CHECK),
                lambda name, error: self.left_out(f"{label(case)}, {name}", error),
            )
            if not runners:
                return
            race = Race(runners, clock=clock_of(self.device))
            race.run(2 if self.quick else race.rounds_in(RACE_BUDGET, FEWEST_ROUNDS, MOST_ROUNDS))
            lengths = problem.lengths.tolist()
            rows = self.recorder.record_race(case, race, card.floor_us(case, lengths))
        times = ", ".join(f"{name} {row.median_us:.0f}" for name, row in rows.items())
        self.say(f"{label(case)} ({time.monotonic() - began:.0f} s), us: {times}")
        self.tidy()

    def contenders(self, case: Case) -> list[str]:
        """Names for the race: peers, then the op's kernels, captured ones too in the first cases.

        The reference takes part in the main case, and where no kernel serves the case; kernels with
        weights in both places where that is in question.
        """
        names = names_of(replace(case, every_backend=True))
        names = [name for name in names if self.compiles or not compiles(name)]
        peers = [name for name in names if not is_op(name)]
        kernels = [name for name in names if is_op(name) and name not in _PROGRAMS]
        captures = self.device == "cuda" and case.name.startswith(("main", "single", "batch-1"))
        graphs = [f"{name}{GRAPH}" for name in kernels] if captures else []
        reference = ["op:reference"] if case.name == "main" or not kernels else []
        placed = weights_of(case) if case.name in gpu_cases.WEIGHTS and not case.backward else []
        return [*peers, *reference, *graphs, *placed, *kernels]

    def within(self, seconds: float) -> float:
        """So many seconds, or those that are left."""
        return min(seconds, self.left)

    def left_out(self, what: str, error: Exception) -> None:
        """Tell that something has no row, and why; a wrong result is a failure of the run."""
        why = reason_of(error)
        self.say(f"{what} left out: {why}")
        if isinstance(error, AssertionError):
            self.broken.append(f"{what}: {why}")

    def step(self, precision: str) -> None:
        """A whole training step, beside the same with a plain encoder."""
        batch, checked, rounds = SPT_BATCH, SPT_CHECKED, SPT_ROUNDS
        if self.quick:
            batch, checked, rounds = 16, 8, 2
        options: dict[str, dict[str, Any]] = {"plain": {"plain": True}}
        if self.compiles:
            options["compiled"] = {"plain": True, "compiled": True}
        options["op"] = {"plain": False}
        place = {"device": self.device, "precision": precision}

        def make(option: dict[str, Any]) -> SptStep:
            exact = SptStep(SPT_DATA, checked, plain=True, **place)
            check_equal(SptStep(SPT_DATA, checked, **option, **place), exact)
            return SptStep(SPT_DATA, batch, **option, **place)

        steps = able(
            {name: partial(make, each) for name, each in options.items()},
            lambda name: self.within(LONGEST_COMPILE),
            lambda name, error: self.left_out(f"step in {precision}, {name}", error),
        )
        if not steps:
            return
        race = Race(dict(steps))
        race.run(rounds)
        parts = {name: step.parts[-rounds:] for name, step in steps.items()}
        rows = self.recorder.record_steps(f"spt-{SPT_DATA}", batch, race, parts, precision)
        times = ", ".join(f"{name} {found[0].median_us:.0f}" for name, found in rows.items())
        self.say(f"training step in {precision}, us: {times}")
        self.tidy()

    def first_call(self) -> None:
        """What the first call of a fresh process takes, by the backend that the op takes itself."""
        name = op_of(replace(gpu_cases.MAIN, device=self.device))
        backend = name.removeprefix("op:")
        seconds = first_call(backend, self.device, "bf16", self.within(LONGEST_COMPILE))
        self.recorder.record_speed("first-call", name, "bf16", wall_us=1e6 * seconds)
        self.say(f"first call of a fresh process, {name}: {seconds:.2f} s")

    def profile(self) -> None:
        """Tables and chrome traces of the main case: the op, and plain beside it."""
        case = replace(gpu_cases.MAIN, device=self.device, backward=True)
        case = gpu_cases.quick(case) if self.quick else case
        problem = problem_of(case)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.device == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        for name in ("plain", names_of(case)[-1]):
            program = build(name, problem, case.precision, case.drops)
            for _ in range(2):
                problem.evaluate(program, case.backward)
            with torch.profiler.profile(activities=kinds) as found:
                for _ in range(PROFILED_CALLS):
                    problem.evaluate(program, case.backward)
                if self.device == "cuda":
                    torch.cuda.synchronize()
            stem = f"profile-{name.replace(':', '-')}"
            order = f"self_{self.device}_time_total"
            table = found.key_averages().table(sort_by=order, row_limit=30)
            (self.out / f"{stem}.txt").write_text(table, encoding="utf-8")
            found.export_chrome_trace(str(self.out / f"{stem}.json.gz"))
        self.say(f"profiles of {PROFILED_CALLS} calls: {self.out}/profile-*")

    def everything(self, tests: bool) -> None:
        """All there is to do, until the time is out."""
        if tests:
            self.broken += run_checks(self.out, CHECKS_SHARE * self.seconds, self.device, self.say)
            self.broken += run_tests(self.out, TESTS_SHARE * self.seconds, self.say, gpu_tests())
            self.broken += watch(self.out, SANITIZER_SHARE * self.seconds, self.device, self.say)
        card = self.measure()
        compiled = gpu_cases.compiled_cases()

        def races(cases: Sequence[Case]) -> list[tuple[str, Callable[[], None]]]:
            return [(label(case), partial(self.race, case, card)) for case in cases]

        tasks: list[tuple[str, Callable[[], None]]] = [
            *races(gpu_cases.first_cases()),
            ("first call", self.first_call),
            ("profile", self.profile),
            *races(compiled[:1]),
            ("training step in bf16", partial(self.step, "bf16")),
            *races(gpu_cases.sweep_cases()),
            *races(compiled[1:]),
            ("training step in fp32", partial(self.step, "fp32")),
        ]
        for what, task in tasks:
            if self.left <= 0:
                self.say(f"out of time: {what} and what follows have no rows")
                break
            try:
                task()
            except Exception as error:
                self.left_out(what, error)

    def tidy(self) -> None:
        """Give memory and compiled programs back before the next case."""
        torch.compiler.reset()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def report(self) -> bool:
        """Plots, tables and goals from the rows so far; whether nothing was wrong."""
        rows = read_rows(self.rows_file, GpuRow)
        rows = [row for row in rows if row.date == self.recorder.run["date"]]
        self.say(write_report(rows, self.out))
        for verdict in verdicts(rows):
            self.say(str(verdict))
        for text in self.broken:
            self.say(f"WRONG: {text}")
        return not self.broken


def compiles(name: str) -> bool:
    """Whether a peer is a compiled program."""
    return name.removesuffix(GRAPH) in COMPILED


def label(case: Case) -> str:
    return f"{case.name}, {case.passes}, {case.precision}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything found")
    parser.add_argument("--minutes", type=float, default=8.0, help="that all may take")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: to see that it runs")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; --device cpu --quick runs the same path without one")
    if given.device == "cpu" and not given.quick:
        parser.error("--device cpu goes with --quick: the cases are made for a GPU")

    run = Run(given.out, given.minutes, given.device, given.quick, not given.no_compile)
    run.say(f"{run.recorder.run['machine']}, torch {run.recorder.run['torch']}")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run.everything(tests=not given.no_tests)
    except KeyboardInterrupt:
        run.say("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0 if run.report() else 1


if __name__ == "__main__":
    sys.exit(main())
