"""Runs random cases in processes of their own, so that one that ends its process is found.

A fuzzer is a module with ``case(seed)``, which raises :class:`Failure` if something is wrong and
follows from its seed alone, and ``main``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_CASES = 400  # of a process


class Failure(AssertionError):
    """A case went wrong; the message says how."""


def main(module: str, case: Callable[[int], None], arguments: list[str] | None = None) -> int:
    """Run cases until the time is up; gives how many went wrong.

    Args:
        module: whose ``case`` it is, as ``python -m`` takes it.
        case: runs the case of a seed.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--seconds", type=float, help="how long to go on (no end by default)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--case", type=int, help="run the one case of this seed, in this process")
    parser.add_argument("--cases", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case is not None:
        case(options.case)
        return 0
    if options.cases is not None:
        return _work(case, options.seed, options.cases)
    return _watch(module, options.seed, options.seconds)


def _work(case: Callable[[int], None], first: int, count: int) -> int:
    for seed in range(first, first + count):
        print(f"case {seed}", flush=True)
        try:
            case(seed)
        except Failure as failure:
            print(f"wrong {str(failure)!r}", flush=True)
    return 0


def _watch(module: str, first: int, seconds: float | None) -> int:
    end = None if seconds is None else time.monotonic() + seconds
    following, wrong = first, 0
    while end is None or time.monotonic() < end:
        command = [sys.executable, "-m", module, "--seed", str(following), "--cases", str(_CASES)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        last, is_over = None, False
        for line in process.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "case":
                last = int(rest)
            elif kind == "wrong":
                wrong += 1
                print(f"python -m {module} --case {last}: {rest}", flush=True)
            is_over = end is not None and time.monotonic() > end
            if is_over:
                process.terminate()
                break
        process.stdout.close()
        code = process.wait()
        if last is None:
            print(f"no case ran: the process ended with {code}")
            return wrong + 1
        if code != 0 and not is_over:
            wrong += 1
            print(f"python -m {module} --case {last}: ended its process with {code}", flush=True)
        following = last + 1
    print(f"{following - first} cases, {wrong} wrong")
    return wrong
