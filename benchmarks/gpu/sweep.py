"""Which rules for the GPU kernels are fastest here: ``python -m benchmarks.gpu.sweep --out DIR``.

Candidates for each kernel of Triton's and of CUDA's are held to the reference, then timed beside the
rules so far in the cases that take the kernel, device time alone, in turns. What is faster by more than
noise goes to DIR/FAMILY.json and DIR/cuda_FAMILY.json, which ``LARES_TRITON_SETTINGS=DIR`` and
``LARES_CUDA_SETTINGS=DIR`` read. All of it ends within ``--minutes``, which backends share; what is not
reached stays as shipped, and is told. Rows go to DIR/sweep_BACKEND.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.equality import check
from benchmarks.cases.gpu import quick
from benchmarks.cases.implementations import build, call_of
from benchmarks.cases.op import Case
from benchmarks.cases.problem import problem_of
from benchmarks.core.clock import clock_of, limited, products
from benchmarks.core.entry import reason_of
from benchmarks.gpu.candidates import BACKENDS, TRITON, Launched, Question
from lares_kernels import available_backends

WORTH = 0.03  # of the time, from which on another rule is taken
TURNS, CALLS_A_TURN = 4, 5
LONGEST_CANDIDATE = 30.0  # seconds, most of them the compiler's


class Sweep:
    """The answers to questions, one after the other.

    Args:
        family: whose rules they are about.
        device: type of the device.
        seconds: that all may take.
        is_quick: tiny shapes.
        say: takes a line for each candidate.
        of: the backend.
    """

    def __init__(
        self,
        family: str,
        device: str,
        seconds: float,
        is_quick: bool = False,
        say: Callable[[str], None] = print,
        of: Launched = TRITON,
    ) -> None:
        self.family, self.device, self.is_quick, self.say = family, device, is_quick, say
        self.of, self.op = of, f"op:{of.name}"
        self.rules, self.end = of.rules(family), time.monotonic() + seconds
        self.rows: list[dict[str, object]] = []

    def answer(self, question: Question) -> None:
        """Try the candidates, and keep the fastest if it is worth it."""
        best, least = self.rules, 1.0 - WORTH
        for name, change in question.candidates.items():
            left, told = self.end - time.monotonic(), "not reached"
            try:
                if left >= 1:
                    with limited(min(left, LONGEST_CANDIDATE), name):
                        rules = change(self.rules)
                        ratio = self._ratio(question, name, rules)
                    told = f"{ratio:.3f} of the time"
                    if ratio < least:
                        best, least = rules, ratio
            except StopIteration:
                told = "no such rule is shipped"
            except Exception as error:  # of compilers, launches, and what is not equal
                told = reason_of(error)
            self.say(f"{self.of.name}: {question}, {name}: {told}")
        self.rules = best

    def _ratio(self, question: Question, name: str, rules: Any) -> float:
        """Device time by ``rules``, against those so far, over the question's cases."""
        ratios = []
        for case in question.cases:
            small = replace(quick(case) if self.is_quick else case, device=self.device)
            with products(small.precision):
                with self.of.use(self.family, rules):
                    check(self.op, small)
                before, after = self._times(small, rules)
            ratios.append(after / before)
            told = {"kernel": question.kernel, "precision": question.precision, "candidate": name}
            self.rows.append(
                {**told, "case": small.name, "passes": small.passes}
                | {"before_us": round(1e6 * before, 2), "after_us": round(1e6 * after, 2)}
            )
        return statistics.geometric_mean(ratios)

    def _times(self, case: Case, rules: Any) -> tuple[float, float]:
        """Medians of a call's seconds on the device, by the rules so far and by ``rules``, in turns."""
        problem, clock = problem_of(case), clock_of(self.device)
        program = build(self.op, problem, case.precision, case.drops)
        call = call_of(self.op, problem, program, case.backward)
        found: tuple[list[float], list[float]] = ([], [])
        for turn in range(1 if self.is_quick else TURNS):
            for times, these in zip(found, (self.rules, rules), strict=True):
                with self.of.use(self.family, these):
                    if turn == 0:
                        call()
                    for _ in range(CALLS_A_TURN):
                        sample = clock(call)
                        times.append(sample.device or sample.wall)
        return statistics.median(found[0]), statistics.median(found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.sweep", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the rules found")
    parser.add_argument("--minutes", type=float, default=2.0, help="that all may take")
    given = parser.parse_args(arguments)
    reasons = available_backends()
    usable = [backend for backend in BACKENDS if reasons[backend.name] == "usable"]
    if not usable or not torch.cuda.is_available():
        said = "; ".join(f"{backend.name}: {reasons[backend.name]}" for backend in BACKENDS)
        parser.error(f"the GPU kernels cannot run here: {said}")
    given.out.mkdir(parents=True, exist_ok=True)
    say = partial(print, flush=True)
    for backend in BACKENDS:
        if backend not in usable:
            say(f"{backend.name}: {reasons[backend.name]}")
    end = time.monotonic() + 60 * given.minutes
    for number, backend in enumerate(usable):
        share = (end - time.monotonic()) / (len(usable) - number)
        sweep = Sweep(backend.family(), "cuda", share, say=say, of=backend)
        for question in backend.questions():
            sweep.answer(question)
        save(sweep, given.out)
    return 0


def save(sweep: Sweep, out: Path) -> None:
    """Write the rules and the rows."""
    backend, file = sweep.of, out / sweep.of.file(sweep.family)
    backend.write(file, sweep.rules)
    with (out / f"sweep_{backend.name}.csv").open("w", newline="", encoding="utf-8") as rows:
        names = list(sweep.rows[0]) if sweep.rows else ["candidate"]
        writer = csv.DictWriter(rows, names)
        writer.writeheader()
        writer.writerows(sweep.rows)
    sweep.say(f"{file}; {backend.variable}={out} has kernels launched by it")


if __name__ == "__main__":
    sys.exit(main())
