"""What is checked on a card, run here at tiny sizes, and what becomes of a check that goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.gpu import check_list as gpu_check_list
from benchmarks.gpu import checks as gpu_checks
from benchmarks.gpu.check_list import CHECKS, Check, Place

# Stands for the checks: one goes wrong, one ends its process, one never ends.
PROGRAM = """
import os, sys, time
print("seen", sys.argv[1])
if sys.argv[1] == "wrong":
    raise AssertionError("two are not three")
if sys.argv[1] == "fault":
    os.abort()
if sys.argv[1] == "slow":
    time.sleep(60)
"""


@pytest.mark.parametrize("name", CHECKS)
def test_checks_run_without_a_card_as_far_as_they_can(name: str) -> None:
    CHECKS[name].run(Place("cpu"))


def test_no_check_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"right": 60.0, "wrong": 60.0, "fault": 60.0, "slow": 1.0, "last": 60.0}
    checks = {name: Check(seconds, lambda place: None) for name, seconds in limits.items()}
    monkeypatch.setattr(gpu_check_list, "CHECKS", checks)
    monkeypatch.setattr(gpu_checks, "_PROGRAM", (sys.executable, "-u", "-c", PROGRAM))
    said: list[str] = []
    wrong = gpu_checks.run_checks(tmp_path, 300.0, "cpu", said.append)
    assert [line.split(":")[0] for line in wrong] == ["check wrong", "check fault", "check slow"]
    assert "AssertionError: two are not three" in wrong[0]
    assert "stopped after 1 s" in wrong[2]
    assert len(said) == len(checks)
    kept = (tmp_path / "checks.txt").read_text()
    assert [f"seen {name}" in kept for name in checks] == [True] * len(checks)


def test_checks_that_are_not_reached_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    assert gpu_checks.run_checks(tmp_path, 0.0, "cpu", said.append) == []
    assert said == [f"check {name}: not reached" for name in CHECKS]
