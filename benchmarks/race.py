"""Functions timed in turn, A, B, C, A, B, C: a change of the machine's pace meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

SHORT = 0.02  # seconds; below it a turn begins with a call that is not timed, to fill the caches


class Sample(NamedTuple):
    """Seconds of one call: on the clock, and of this thread on a processor."""

    wall: float
    cpu: float


class Summary(NamedTuple):
    """Median and quartiles in seconds, and how many times as long the first runner took."""

    median: float
    q1: float
    q3: float
    cpu_median: float
    rounds: int
    speedup: float


def timed(call: Callable[[], object]) -> Sample:
    cpu, wall = time.thread_time(), time.perf_counter()
    call()
    return Sample(time.perf_counter() - wall, time.thread_time() - cpu)


class Race:
    """A round is one call of every runner; the last runner is the subject.

    ``others`` and ``subject`` are the two halves of a round, so that a benchmark can use the first as
    its set-up and the second as its target.

    Args:
        runners: by name, at least one; the first is what speed-ups are against.
        warm_up_rounds: calls of each that come first and are dropped.
    """

    def __init__(self, runners: dict[str, Callable[[], object]], warm_up_rounds: int = 1) -> None:
        self.runners = runners
        self.samples: dict[str, list[Sample]] = {name: [] for name in runners}
        self.pace: dict[str, float] = {}
        for _ in range(warm_up_rounds):
            self.pace = {name: timed(runner).wall for name, runner in runners.items()}

    @property
    def round_seconds(self) -> float:
        """What a round takes, judged by the warm-up."""
        return sum(pace * (2 if pace < SHORT else 1) for pace in self.pace.values())

    def rounds_in(self, budget: float, fewest: int, most: int) -> int:
        """How many rounds fit into ``budget`` seconds, within limits."""
        return max(fewest, min(most, int(budget / self.round_seconds)))

    def others(self) -> None:
        *others, subject = self.runners
        for name in others:
            self._get_ready(name)
            self._turn(name)
        self._get_ready(subject)

    def subject(self) -> None:
        self._turn(list(self.runners)[-1])

    def _get_ready(self, name: str) -> None:
        if self.pace.get(name, 0.0) < SHORT:
            self.runners[name]()

    def _turn(self, name: str) -> None:
        self.samples[name].append(timed(self.runners[name]))

    def summary(self, name: str) -> Summary:
        """Of one runner; the speed-up is the median of what each round gives."""
        own, first = self.samples[name], next(iter(self.samples.values()))
        walls = [sample.wall for sample in own]
        q1, median, q3 = (
            statistics.quantiles(walls, n=4, method="inclusive") if len(walls) > 1 else walls * 3
        )
        return Summary(
            median,
            q1,
            q3,
            statistics.median(sample.cpu for sample in own),
            len(walls),
            statistics.median(a.wall / b.wall for a, b in zip(first, own, strict=True)),
        )
