"""Who takes part in a race: ours always, a peer where this machine can run it in bearable time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.core.clock import limited
from benchmarks.core.process import printed_by
from benchmarks.core.race import Race, timed

Runner = Callable[[], object]
AnyRunner = TypeVar("AnyRunner", bound=Runner)
LONGEST_REASON = 200  # characters


class NotEqual(AssertionError):
    """An implementation gives something else than the equations: it is wrong, not unable to run."""


def is_ours(name: str) -> bool:
    """Whether an implementation is this project's: ``op``, or ``op:`` and a backend."""
    return name.split(":")[0] == "op"


def reason_of(error: Exception) -> str:
    """Say in one line why something could not run."""
    if isinstance(error, subprocess.CalledProcessError):
        # The last line of a traceback names the error; a process that was killed leaves none.
        lines = (error.stderr or "").strip().splitlines()
        return (lines[-1] if lines else f"ended with status {error.returncode}")[:LONGEST_REASON]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else "no message"
    if first.endswith(":") and len(lines) > 1:  # as in "backend='inductor' raised:"
        first = f"{first} {lines[1]}"
    return f"{type(error).__name__}: {first}"[:LONGEST_REASON]


def able(
    makers: Mapping[str, Callable[[], AnyRunner]],
    longest: Callable[[str], float],
    left_out: Callable[[str, Exception], None],
) -> dict[str, AnyRunner]:
    """Make and call runners, each within its seconds, and return those that could be.

    Args:
        makers: by name.
        longest: seconds that a name may take.
        left_out: is told which could not be, and why: it may break in many ways, the others go on.
    """
    runners = {}
    for name, make in makers.items():
        try:
            with limited(longest(name), name):
                runner = make()
                runner()
        except Exception as error:
            left_out(name, error)
        else:
            runners[name] = runner
    return runners


def enter(
    makers: Mapping[str, Callable[[], Runner]],
    rounds: int,
    longest: float,
    warms_up: bool = True,
) -> Race:
    """Make and call every runner, and return the race of those that can take part.

    What one of ours raises is raised, and so is :class:`NotEqual` of a peer. Whatever else a peer
    raises, or calls that would take longer than ``longest``, leave it out.

    Args:
        makers: by name, in order; each holds its runner to the truth and returns it. Speed-ups are
            against the first, whether it takes part or not.
        rounds: the fewest of the race.
        longest: seconds that these may take a peer.
        warms_up: whether to call them beforehand, without which none is too slow.
    """
    runners: dict[str, Runner] = {}
    pace: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, make in makers.items():
        try:
            runner = make()
            seconds = timed(runner).wall if warms_up else 0.0
            if rounds * seconds > longest:  # the first call may have compiled something
                seconds = timed(runner).wall
        except Exception as error:
            if is_ours(name) or isinstance(error, NotEqual):
                raise
            left_out[name] = reason_of(error)
            continue
        if rounds * seconds > longest and not is_ours(name):
            slow = f"one call takes {seconds:.1f} s"
            left_out[name] = f"{slow}; {rounds} rounds would pass {longest:.0f} s"
            continue
        runners[name] = runner
        if warms_up:
            pace[name] = seconds
    race = Race(runners, warm_up_rounds=0, base=next(iter(makers)), left_out=left_out)
    race.pace = pace
    return race


def number_from(name: str, command: Sequence[str]) -> int | str:
    """Return the number that a program prints, or why a peer's cannot: ours has to."""
    try:
        return int(printed_by(command))
    except subprocess.CalledProcessError as error:
        if is_ours(name):
            raise
        return reason_of(error)
