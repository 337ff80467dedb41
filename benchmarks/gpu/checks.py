"""What only a card can show, the most telling first: ``python -m benchmarks.gpu.checks``.

Each check runs in a process of its own, since a fault leaves a card's context useless, and is limited
in time; what one finds stops no other. A check prints what it sees and raises where something is wrong.
``python -m benchmarks.gpu.checks NAME`` makes one of them here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.core.process import run_here

_PROGRAM = (sys.executable, "-u", "-m", "benchmarks.gpu.checks")


def run_checks(
    out: Path, seconds: float, device: str, say: Callable[[str], None] = print
) -> list[str]:
    """Run every check, and write what they print to ``out/checks.txt`` as it comes.

    Args:
        out: a folder.
        seconds: for all of them; those that are not reached are told.
        device: type of the device; on ``cpu`` what needs no card runs at tiny sizes.
        say: takes a line for each check.

    Returns:
        Why checks failed, a line each.
    """
    from benchmarks.gpu.check_list import CHECKS

    end = time.monotonic() + seconds
    wrong = []
    for name, check in CHECKS.items():
        left = end - time.monotonic()
        if left < 1:
            say(f"check {name}: not reached")
            continue
        # Else the first call would make a check of its own.
        command = [*_PROGRAM, name, "--device", device]
        found = run_here(command, min(check.seconds, left), LARES_SELF_CHECK="0")
        wrong += found.told(f"check {name}", out / "checks.txt", say)
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks.gpu.check_list import CHECKS, Place

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.checks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=list(CHECKS), help="of one check; all of them")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="that all may take")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for checks.txt")
    given = parser.parse_args(arguments)
    if given.name is not None:
        CHECKS[given.name].run(Place(given.device))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    return 1 if run_checks(given.out, 60 * given.minutes, given.device) else 0


if __name__ == "__main__":
    sys.exit(main())
