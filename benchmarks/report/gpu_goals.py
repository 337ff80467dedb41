"""What was set as a goal for the op on an H200 in bf16, held against the rows of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from benchmarks.cases.gpu import COMPILED, EAGER, LENGTH_50, MAIN, SINGLE, with_compiled
from benchmarks.cases.op import Case
from benchmarks.report.results import GpuRow

Rows = Sequence[GpuRow]
Figure = Callable[[Rows], "float | None"]


class Goal(NamedTuple):
    """``value`` gives the figure, None where its rows are missing; it must be below, or above."""

    text: str
    limit: float
    below: bool
    value: Figure


class Verdict(NamedTuple):
    """A goal, the figure found, and whether it is ``met``; None where nothing was measured."""

    goal: Goal
    value: float | None
    met: bool | None

    def __str__(self) -> str:
        word = {None: "not measured", True: "met", False: "MISSED"}[self.met]
        found = "" if self.value is None else f": {self.value:.3g}"
        return f"{word}: {self.goal.text}{found}"


def of(case: Case, figure: Callable[[GpuRow, Rows], float | None]) -> Figure:
    """A figure of a case's race and in it the op's fastest row, no captured one and no reference."""

    def value(rows: Rows) -> float | None:
        wanted = (case.name, case.passes, "bf16")
        race = [row for row in rows if (row.case, row.passes, row.precision) == wanted]
        own = [row for row in race if row.implementation in ("op:triton", "op:cuda")]
        timed = [row for row in own if row.median_us]
        return figure(min(timed, key=lambda row: row.median_us or 0.0), race) if timed else None

    return value


def time(own: GpuRow, race: Rows) -> float | None:
    return own.median_us


def ratio(others: Sequence[str], own: GpuRow, race: Rows) -> float | None:
    """How many times as long the fastest of the others took in the op's own race."""
    times = [row.median_us for row in race if row.implementation in others and row.median_us]
    return min(times) / own.median_us if times and own.median_us else None


def launches(own: GpuRow, race: Rows) -> float | None:
    """A call on the clock, over the part of it that is the host's."""
    return own.wall_us / own.host_us if own.wall_us and own.host_us else None


def first_call(rows: Rows) -> float | None:
    """Seconds."""
    found = [row.wall_us for row in rows if row.case == "first-call" and row.wall_us is not None]
    return 1e-6 * max(found) if found else None


_TRAINING = replace(MAIN, backward=True)
_COMPILED = partial(ratio, [name for name in COMPILED if name not in EAGER])
_EAGER = partial(ratio, ["explicit"])
GOALS = (
    Goal("main case, forward, at most 35 us", 35.0, True, of(MAIN, time)),
    Goal(
        "main case, forward, at least 6 times as fast as the best compiled program",
        *(6.0, False, of(with_compiled(MAIN), _COMPILED)),
    ),
    Goal(
        "main case, forward, at least 25 times as fast as eager",
        *(25.0, False, of(MAIN, _EAGER)),
    ),
    Goal(
        "main case, forward and backward with dropout, at most 190 us",
        *(190.0, True, of(_TRAINING, time)),
    ),
    Goal(
        "main case, forward and backward, at least 5 times as fast as the best compiled program",
        *(5.0, False, of(with_compiled(_TRAINING), _COMPILED)),
    ),
    Goal("50 items, forward, at most 220 us", 220.0, True, of(LENGTH_50, time)),
    Goal("a batch of one within twice its launch", 2.0, True, of(SINGLE, launches)),
    Goal(
        "a first call in a fresh process, all compiled before, at most 3 s", 3.0, True, first_call
    ),
)


def verdicts(rows: Rows) -> list[Verdict]:
    """Every goal against the rows of one run."""
    values = [(goal, goal.value(rows)) for goal in GOALS]
    return [
        Verdict(goal, value, None if value is None else (value <= goal.limit) == goal.below)
        for goal, value in values
    ]
