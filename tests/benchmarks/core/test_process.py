"""Processes of the benchmarks: what they print, how they end, and that none outlives its time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.core.process import printed_by, run_here


def test_what_was_printed_and_why_it_failed(tmp_path: Path) -> None:
    right = run_here([sys.executable, "-c", "import benchmarks; print('right')"], 60.0)
    assert (right.text, right.status, right.wrong) == ("right", 0, None)
    wrong = run_here([sys.executable, "-c", "print('seen'); [][0]"], 60.0)
    assert wrong.text.startswith("seen\nTraceback")
    assert wrong.wrong == "IndexError: list index out of range"
    silent = run_here(["sh", "-c", "exit 3"], 60.0)
    assert silent.wrong == "status 3, and no word"
    said: list[str] = []
    assert right.told("one", tmp_path / "log.txt", said.append) == []
    assert wrong.told("two", tmp_path / "log.txt", said.append) == [f"two: {wrong.wrong}"]
    assert [line.split(" (")[0] for line in said] == ["one", "two"]
    assert "right" in (tmp_path / "log.txt").read_text()
    assert "Traceback" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("command", ["sleep 60 & sleep 60", "sleep 60 &"])
def test_what_takes_too_long_ends_with_all_that_it_started(command: str) -> None:
    began = time.monotonic()
    found = run_here(["sh", "-c", f"echo before; {command}"], 1.0)
    assert time.monotonic() - began < 30
    assert found.text == "before\nstopped after 1 s"


def test_the_environment_of_a_process(tmp_path: Path) -> None:
    program = "import os; print(os.getcwd(), os.environ['ADDED'])"
    found = run_here([sys.executable, "-c", program], 60.0, tmp_path, ADDED="this")
    assert found.text == f"{tmp_path} this"


def test_what_a_program_prints() -> None:
    program = "import sys; print(7); print('noise', file=sys.stderr)"
    assert printed_by([sys.executable, "-c", program]) == "7\n"
    with pytest.raises(subprocess.TimeoutExpired):
        printed_by(["sleep", "60"], 0.2)
    with pytest.raises(subprocess.CalledProcessError):
        printed_by(["sh", "-c", "exit 3"])
