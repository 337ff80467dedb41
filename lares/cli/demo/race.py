"""Programs timed in turn: a change of the machine's pace meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Program = Callable[[], object]
_WARM_UPS = 2  # rounds
_TURN = 0.004  # seconds that a turn of short calls takes about: the clock and the caches need some
_FEWEST = 3  # rounds, however long they take


class Ratio(NamedTuple):
    """Hold the median and the quartiles of what each round gives."""

    median: float
    low: float
    high: float


class Race:
    """A round is a turn of every program, in order and in reverse by turns.

    A turn of short calls is several of them after one that does not count: the other programs have
    pushed their data out of the caches.

    Args:
        programs: by name.
        seconds: to spend on all rounds, unless the fewest take longer.
    """

    def __init__(self, programs: Mapping[str, Program], seconds: float) -> None:
        for _ in range(_WARM_UPS):
            paces = {name: _seconds(program, 1) for name, program in programs.items()}
        calls = {name: max(1, int(_TURN / pace)) for name, pace in paces.items()}
        self._taken: dict[str, list[float]] = {name: [] for name in programs}
        order, began, self.rounds = list(programs), time.perf_counter(), 0
        while self.rounds < _FEWEST or time.perf_counter() - began < seconds:
            for name in order:
                if calls[name] > 1:
                    programs[name]()
                self._taken[name].append(_seconds(programs[name], calls[name]))
            order.reverse()
            self.rounds += 1

    def seconds(self, name: str) -> float:
        """Return the median seconds of a call."""
        return statistics.median(self._taken[name])

    def ratio(self, name: str, base: str) -> Ratio:
        """Return how many times as long as ``base`` a program takes, round by round."""
        pairs = zip(self._taken[name], self._taken[base], strict=True)
        low, median, high = statistics.quantiles(
            [own / other for own, other in pairs], n=4, method="inclusive"
        )
        return Ratio(median, low, high)


def _seconds(program: Program, calls: int) -> float:
    """Return seconds of a call, the mean of ``calls`` in a row."""
    started = time.perf_counter()
    for _ in range(calls):
        program()
    return (time.perf_counter() - started) / calls
