"""What was set as a goal for the op on an H200 in bf16, held against the rows of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.cases.gpu import COMPILED, LENGTH_50, MAIN, SINGLE, with_compiled
from benchmarks.report.results import GpuRow

_COMPILED = tuple(name for name in COMPILED if name not in ("explicit", "plain"))


class Goal(NamedTuple):
    """``value`` gives the figure, None where its rows are missing; it must be below, or above."""

    text: str
    limit: float
    below: bool
    value: Callable[[Sequence[GpuRow]], float | None]


class Verdict(NamedTuple):
    """A goal, the figure found, and whether it is ``met``; None where nothing was measured."""

    goal: Goal
    value: float | None
    met: bool | None

    def __str__(self) -> str:
        word = {None: "not measured", True: "met", False: "MISSED"}[self.met]
        found = "" if self.value is None else f": {self.value:.3g}"
        return f"{word}: {self.goal.text}{found}"


def _of(rows: Sequence[GpuRow], case: str, passes: str) -> list[GpuRow]:
    wanted = (case, passes, "bf16")
    return [row for row in rows if (row.case, row.passes, row.precision) == wanted]


def _op(rows: Sequence[GpuRow]) -> GpuRow | None:
    """The op's fastest row that is not a captured one and no reference."""
    own = [
        row
        for row in rows
        if row.implementation in ("op:triton", "op:cuda") and row.median_us is not None
    ]
    return min(own, key=lambda row: row.median_us or 0.0, default=None)


def _time(case: str, passes: str) -> Callable[[Sequence[GpuRow]], float | None]:
    def value(rows: Sequence[GpuRow]) -> float | None:
        own = _op(_of(rows, case, passes))
        return None if own is None else own.median_us

    return value


def _ratio(case: str, passes: str, others: Sequence[str]) -> Callable[..., float | None]:
    """How many times as long the fastest of the others took in the op's own race."""

    def value(rows: Sequence[GpuRow]) -> float | None:
        chosen = _of(rows, case, passes)
        own = _op(chosen)
        times = [row.median_us for row in chosen if row.implementation in others]
        found = [time for time in times if time]
        if own is None or not own.median_us or not found:
            return None
        return min(found) / own.median_us

    return value


def _launches(rows: Sequence[GpuRow]) -> float | None:
    """A batch of one on the clock, over the part of it that is the host's."""
    own = _op(_of(rows, SINGLE.name, "forward"))
    if own is None or not own.wall_us or not own.host_us:
        return None
    return own.wall_us / own.host_us


def _first_call(rows: Sequence[GpuRow]) -> float | None:
    """Seconds."""
    found = [row.wall_us for row in rows if row.case == "first-call" and row.wall_us is not None]
    return 1e-6 * max(found) if found else None


_BOTH = "forward+backward"
_RACE = with_compiled(MAIN).name
GOALS = (
    Goal("main case, forward, at most 35 us", 35.0, True, _time(MAIN.name, "forward")),
    Goal(
        "main case, forward, at least 6 times as fast as the best compiled program",
        *(6.0, False, _ratio(_RACE, "forward", _COMPILED)),
    ),
    Goal(
        "main case, forward, at least 25 times as fast as eager",
        *(25.0, False, _ratio(MAIN.name, "forward", ("explicit",))),
    ),
    Goal(
        "main case, forward and backward with dropout, at most 190 us",
        *(190.0, True, _time(MAIN.name, _BOTH)),
    ),
    Goal(
        "main case, forward and backward, at least 5 times as fast as the best compiled program",
        *(5.0, False, _ratio(_RACE, _BOTH, _COMPILED)),
    ),
    Goal("50 items, forward, at most 220 us", 220.0, True, _time(LENGTH_50.name, "forward")),
    Goal("a batch of one within twice its launch", 2.0, True, _launches),
    Goal(
        "a first call in a fresh process, all compiled before, at most 3 s", 3.0, True, _first_call
    ),
)


def verdicts(rows: Sequence[GpuRow]) -> list[Verdict]:
    """Every goal against the rows of one run."""
    found = []
    for goal in GOALS:
        value = goal.value(rows)
        met = None if value is None else (value <= goal.limit) == goal.below
        found.append(Verdict(goal, value, met))
    return found
