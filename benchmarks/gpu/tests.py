"""The tests that need a GPU, in several processes at once: most of their time goes to compilers."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.core.process import run_here
from benchmarks.core.settings import ROOT

MOST_PROCESSES = 6
_PROCESSORS_EACH = 2  # a test's process and the compiler's
_FOUND_NO_TESTS = 5  # pytest's exit code
_PYTEST = (sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider")


def gpu_tests() -> list[str]:
    """Test files with tests marked ``gpu`` whose packages are here."""
    folder = ROOT / "tests"
    needed = {"training": "lightning_fabric", "cli": "jsonargparse"}
    missing = {part for part, name in needed.items() if importlib.util.find_spec(name) is None}
    return [
        str(path)
        for path in sorted(folder.rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
        and not missing & set(path.relative_to(folder).parts)
    ]


def run_tests(
    out: Path, seconds: float, say: Callable[[str], None], files: Sequence[str]
) -> list[str]:
    """Run the tests marked ``gpu`` of ``files``; why they failed, a line where they did.

    Without pytest-xdist they run one after the other. That there are none is no failure.

    Args:
        out: folder for tests.txt, what pytest prints.
        seconds: after which tests are stopped.
        say: takes a line.
        files: of tests.
    """
    count = max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) // _PROCESSORS_EACH))
    several = ["-n", str(count)] if importlib.util.find_spec("xdist") else []
    found = run_here([*_PYTEST, *several, *files], seconds, ROOT)
    if found.status == _FOUND_NO_TESTS:
        found = found._replace(status=0)
    return found.told("tests", out / "tests.txt", say)
