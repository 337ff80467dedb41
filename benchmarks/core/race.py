"""Functions timed in turn, A, B, C, A, B, C: a change of the machine's pace meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# Seconds. A turn of a runner that takes less begins with a call that is not timed, or with as many as
# READY holds: the other runners have pushed its code, its weights and what the processor has learnt of
# its branches out, and a call of microseconds takes twice as long until they are back.
SHORT, READY = 0.02, 0.002


class Sample(NamedTuple):
    """Seconds of one call.

    Attributes:
        wall: on the clock, until the result is there.
        cpu: of this thread on a processor.
        device: between two events on the device, None where the device is the CPU.
        host: on the clock, until the call returned.
    """

    wall: float
    cpu: float
    device: float | None = None
    host: float | None = None

    @property
    def seconds(self) -> float:
        """What is compared."""
        return self.wall if self.device is None else self.device


class Summary(NamedTuple):
    """Median and quartiles in seconds, and how many times as long the base of the race took.

    ``speedup`` is None where the base was left out, ``wall_median`` and ``host_median`` where the
    median is itself on the clock.
    """

    median: float
    q1: float
    q3: float
    cpu_median: float
    rounds: int
    speedup: float | None
    wall_median: float | None = None
    host_median: float | None = None


def timed(call: Callable[[], object]) -> Sample:
    cpu, wall = time.thread_time(), time.perf_counter()
    call()
    return Sample(time.perf_counter() - wall, time.thread_time() - cpu)


def summary_of(own: Sequence[Sample], base: Sequence[Sample] | None) -> Summary:
    """Of one runner's rounds; the speed-up is the median of what each round gives."""
    times = [sample.seconds for sample in own]
    q1, median, q3 = (
        statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    )
    on_device = own[0].device is not None
    return Summary(
        *(median, q1, q3, statistics.median(sample.cpu for sample in own), len(times)),
        base and statistics.median(a.seconds / b.seconds for a, b in zip(base, own, strict=True)),
        statistics.median(sample.wall for sample in own) if on_device else None,
        statistics.median(sample.host or 0.0 for sample in own) if on_device else None,
    )


class Race:
    """A round is one call of every runner; the last runner is the subject.

    ``others`` and ``subject`` are the two halves of a round, so that a benchmark can use the first as
    its set-up and the second as its target.

    Args:
        runners: by name, at least one.
        warm_up_rounds: calls of each that come first and are dropped.
        clock: what times a call.
        base: what speed-ups are against; None: the first runner.
        left_out: why others do not take part, by name.
    """

    def __init__(
        self,
        runners: dict[str, Callable[[], object]],
        warm_up_rounds: int = 1,
        clock: Callable[[Callable[[], object]], Sample] = timed,
        base: str | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.runners, self.clock = runners, clock
        self.base = base or next(iter(runners))
        self.left_out = dict(left_out or {})
        self.samples: dict[str, list[Sample]] = {name: [] for name in runners}
        self.pace: dict[str, float] = {}
        for _ in range(warm_up_rounds):
            self.pace = {name: clock(runner).wall for name, runner in runners.items()}

    @property
    def round_seconds(self) -> float:
        """What a round takes, judged by the warm-up."""
        return sum(pace + self._calls_before(name) * pace for name, pace in self.pace.items())

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

    def _calls_before(self, name: str) -> int:
        """That a turn begins with and does not time."""
        pace = self.pace.get(name, READY)
        return max(1, int(READY / pace)) if pace < SHORT else 0

    def _get_ready(self, name: str) -> None:
        for _ in range(self._calls_before(name)):
            self.runners[name]()

    def _turn(self, name: str) -> None:
        self.samples[name].append(self.clock(self.runners[name]))

    def run(self, rounds: int) -> None:
        """So many rounds."""
        for _ in range(rounds):
            self.others()
            self.subject()

    def summary(self, name: str) -> Summary:
        """Of one runner, beside the base."""
        return summary_of(self.samples[name], self.samples.get(self.base))
