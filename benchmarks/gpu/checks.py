"""What only a card can show, the most telling first: ``python -m benchmarks.gpu.checks``.

Each check runs in a process of its own, since a fault leaves a card's context useless, and is limited
in time; what one finds stops no other. A check prints what it sees and raises where something is wrong.
``python -m benchmarks.gpu.checks NAME`` makes one of them here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.core.settings import ROOT

_PROGRAM = (sys.executable, "-u", "-m", "benchmarks.gpu.checks")


class Checked(NamedTuple):
    """A check's name, what it printed, and why it failed, if it did."""

    name: str
    text: str
    wrong: str | None
    seconds: float


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
        found = _in_a_process(name, device, min(check.seconds, left))
        with (out / "checks.txt").open("a", encoding="utf-8") as file:
            file.write(f"== {name} ({found.seconds:.0f} s): {found.wrong or 'ok'}\n{found.text}\n")
        say(f"check {name} ({found.seconds:.0f} s): {found.wrong or 'ok'}")
        if found.wrong:
            wrong.append(f"check {name}: {found.wrong}")
    return wrong


def _in_a_process(name: str, device: str, seconds: float) -> Checked:
    command = [*_PROGRAM, name, "--device", device]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]),
        # Else the first call would make a check of its own.
        "LARES_SELF_CHECK": "0",
    }
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
        text, status = done.stdout, done.returncode
        stopped = None
    except subprocess.TimeoutExpired as error:
        text, status = error.stdout or b"", 1
        stopped = f"stopped after {seconds:.0f} s"
    lines = text.decode(errors="replace").rstrip()
    last = lines.splitlines()[-1] if lines else f"status {status}, and no word"
    wrong = None if status == 0 else stopped or last
    return Checked(name, lines, wrong, time.monotonic() - began)


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
