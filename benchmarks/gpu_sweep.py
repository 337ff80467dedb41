"""Which rules for Triton's kernels are fastest here: ``python -m benchmarks.gpu_sweep --out DIR``.

Candidates for each kernel are held to the reference, then timed beside the shipped rules in the cases
that take the kernel, device time alone, in turns. What is faster by more than noise replaces the
shipped rule in DIR/FAMILY.json, which ``LARES_TRITON_SETTINGS=DIR`` reads. All of it ends within
``--minutes``; what is not reached stays as shipped, and is told. Rows go to DIR/sweep.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.cases import Case
from benchmarks.entry import reason_of
from benchmarks.equality import check
from benchmarks.gpu_cases import LENGTH_50, MAIN, quick
from benchmarks.gpu_clock import clock_of, limited, products
from benchmarks.implementations import build, call_of
from benchmarks.problem import problem_of
from lares_kernels import available_backends
from lares_kernels.triton.rules import Setting, write_rules
from lares_kernels.triton.settings import family_of, settings, use_rules

Rules = tuple[Setting, ...]
OP = "op:triton"
WORTH = 0.03  # of the time, from which on another rule is taken
TURNS, CALLS_A_TURN = 4, 5
LONGEST_CANDIDATE = 30.0  # seconds, most of them the compiler's
TRAINING = replace(MAIN, backward=True)


@dataclass(frozen=True)
class Question:
    """Which of some rules to take for one kernel.

    Attributes:
        kernel, precision, rows: of the shipped rule that candidates stand in for.
        cases: to be fast in; the mean of their ratios decides.
        candidates: by name, each of the shipped rules to those with the candidate.
    """

    kernel: str
    precision: str
    rows: int
    cases: tuple[Case, ...]
    candidates: dict[str, Callable[[Rules], Rules]]

    def __str__(self) -> str:
        return f"{self.kernel}, {self.precision}, {self.rows} rows"


def changed(question: tuple[str, str, int], **values: object) -> Callable[[Rules], Rules]:
    """Make what changes the first streamed rule of attention of a kernel, precision and rows."""

    def change(rules: Rules) -> Rules:
        at = _place(rules, *question)
        return (*rules[:at], replace(rules[at], **values), *rules[at + 1 :])  # type: ignore[arg-type]

    return change


def preferred(question: tuple[str, str, int]) -> Callable[[Rules], Rules]:
    """Make what prefers the resident rule for any number of layers to the streamed one."""

    def prefer(rules: Rules) -> Rules:
        at = _place(rules, *question)
        resident = next(
            rule
            for rule in rules
            if rule.resident and rule.most_layers > 1 and rule.kernel == question[0]
        )
        others = [rule for rule in rules[at:] if rule is not resident]
        return (*rules[:at], resident, *others)

    return prefer


def added(**values: object) -> Callable[[Rules], Rules]:
    """Make what adds a rule like the backward's of 32 rows, for longer sequences."""

    def add(rules: Rules) -> Rules:
        at = _place(rules, "backward", "half", 32)
        return (*rules[: at + 1], replace(rules[at], **values), *rules[at + 1 :])  # type: ignore[arg-type]

    return add


def without(kernel: str, precision: str) -> Callable[[Rules], Rules]:
    """Make what leaves a kernel's calls to the layered plan."""

    def leave_out(rules: Rules) -> Rules:
        return tuple(r for r in rules if (r.kernel, r.precision) != (kernel, precision))

    return leave_out


def _place(rules: Rules, kernel: str, precision: str, rows: int) -> int:
    return next(
        i
        for i, rule in enumerate(rules)
        if (rule.kernel, rule.precision) == (kernel, precision)
        and (rule.rows == rows or kernel == "weights")
        and not rule.resident
        and "attention" in rule.mixers
    )


FORWARD, BACKWARD, WEIGHTS = (
    ("forward", "half", 32),
    ("backward", "half", 32),
    ("weights", "half", 64),
)
IEEE = ("forward", "ieee", 32)


def questions() -> list[Question]:
    """What is not known without a card, the most telling first."""
    long_training = replace(LENGTH_50, backward=True)
    return [
        Question(
            *FORWARD,
            (MAIN, TRAINING),
            {
                "resident": preferred(FORWARD),
                "two stages": changed(FORWARD, stages=2),
                "three stages": changed(FORWARD, stages=3),
                "168 registers": changed(FORWARD, registers=168),
            },
        ),
        Question(
            *BACKWARD,
            (TRAINING,),
            {
                "168 registers": changed(BACKWARD, registers=168),
                "two stages": changed(BACKWARD, stages=2),
                "eight warps": changed(BACKWARD, warps=8, programs=1),
            },
        ),
        Question(
            *WEIGHTS,
            (TRAINING,),
            {
                "four programs": changed(WEIGHTS, programs=4),
                "eight programs": changed(WEIGHTS, programs=8),
            },
        ),
        Question(
            *BACKWARD,
            (long_training,),
            {
                "64 rows too": added(rows=64, chunk=32),
                "64 rows of eight warps too": added(rows=64, chunk=32, warps=8, programs=1),
            },
        ),
        Question(*IEEE, (replace(MAIN, precision="fp32"),), {"layered": without(*IEEE[:2])}),
    ]


class Sweep:
    """The answers to questions, one after the other.

    Args:
        family: whose rules they are about.
        device: type of the device.
        seconds: that all may take.
        is_quick: tiny shapes.
        say: takes a line for each candidate.
    """

    def __init__(
        self,
        family: str,
        device: str,
        seconds: float,
        is_quick: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.family, self.device, self.is_quick, self.say = family, device, is_quick, say
        self.rules, self.end = settings(family), time.monotonic() + seconds
        self.rows: list[dict[str, object]] = []

    def answer(self, question: Question) -> None:
        """Try the candidates, and keep the fastest if it is worth it."""
        best, least = self.rules, 1.0 - WORTH
        for name, change in question.candidates.items():
            left = self.end - time.monotonic()
            if left < 1:
                self.say(f"{question}, {name}: not reached")
                continue
            try:
                with limited(min(left, LONGEST_CANDIDATE), name):
                    rules = change(self.rules)
                    ratio = self._ratio(question, name, rules)
            except StopIteration:
                self.say(f"{question}, {name}: no such rule is shipped")
                continue
            except Exception as error:  # of compilers, launches, and what is not equal
                self.say(f"{question}, {name}: {reason_of(error)}")
                continue
            self.say(f"{question}, {name}: {ratio:.3f} of the time")
            if ratio < least:
                best, least = rules, ratio
        self.rules = best

    def _ratio(self, question: Question, name: str, rules: Rules) -> float:
        """Device time by ``rules``, against those so far, over the question's cases."""
        ratios = []
        for case in question.cases:
            small = replace(quick(case) if self.is_quick else case, device=self.device)
            with products(small.precision):
                with use_rules(self.family, rules):
                    check(OP, small)
                before, after = self._times(small, rules)
            ratios.append(after / before)
            told = {"kernel": question.kernel, "precision": question.precision, "candidate": name}
            self.rows.append(
                {**told, "case": small.name, "passes": small.passes}
                | {"before_us": round(1e6 * before, 2), "after_us": round(1e6 * after, 2)}
            )
        return statistics.geometric_mean(ratios)

    def _times(self, case: Case, rules: Rules) -> tuple[float, float]:
        """Medians of a call's seconds on the device, by the rules so far and by ``rules``, in turns."""
        problem, clock = problem_of(case), clock_of(self.device)
        call = call_of(OP, problem, build(OP, problem, case.precision, case.drops), case.backward)
        found: tuple[list[float], list[float]] = ([], [])
        for turn in range(1 if self.is_quick else TURNS):
            for times, these in zip(found, (self.rules, rules), strict=True):
                with use_rules(self.family, these):
                    if turn == 0:
                        call()
                    for _ in range(CALLS_A_TURN):
                        sample = clock(call)
                        times.append(sample.device or sample.wall)
        return statistics.median(found[0]), statistics.median(found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_sweep", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the rules found")
    parser.add_argument("--minutes", type=float, default=2.0, help="that all may take")
    given = parser.parse_args(arguments)
    if available_backends()["triton"] != "usable" or not torch.cuda.is_available():
        parser.error(f"Triton's kernels cannot run here: {available_backends()['triton']}")
    given.out.mkdir(parents=True, exist_ok=True)
    family = family_of(torch.device("cuda"))
    sweep = Sweep(family, "cuda", 60 * given.minutes, say=partial(print, flush=True))
    for question in questions():
        sweep.answer(question)
    save(sweep, given.out)
    return 0


def save(sweep: Sweep, out: Path) -> None:
    """Write the rules and the rows."""
    write_rules(out / f"{sweep.family}.json", sweep.rules)
    with (out / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        names = list(sweep.rows[0]) if sweep.rows else ["candidate"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(sweep.rows)
    sweep.say(f"{out / sweep.family}.json; LARES_TRITON_SETTINGS={out} has kernels launched by it")


if __name__ == "__main__":
    sys.exit(main())
