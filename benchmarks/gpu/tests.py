"""The tests that need a GPU, in several processes at once: most of their time goes to compilers."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.core.settings import ROOT

MOST_PROCESSES = 6
_PROCESSORS_EACH = 2  # a test's process and the compiler's
_FOUND_NO_TESTS = 5  # pytest's exit code
_PYTEST = (sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider")


class Tested(NamedTuple):
    """What tests wrote, its last lines, and those of processes that failed or were stopped."""

    text: str
    summaries: list[str]
    wrong: list[str]


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


def run_tests(files: Sequence[str], folder: Path, seconds: float) -> Tested:
    """Run the tests marked ``gpu`` of ``files`` for at most so many seconds.

    Args:
        files: of tests.
        folder: for what the processes write while they run.
        seconds: after which processes are stopped; what they had to say until then is kept.
    """
    began = time.monotonic()
    names = _collected(files, seconds)
    count = max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) // _PROCESSORS_EACH, len(names)))
    # Neighbours differ by one parameter and take as long: dealt like cards, all hands are alike.
    shares = [names[i::count] for i in range(count)] if names else [list(files)]
    outputs = [folder / f"tests-{i}.txt" for i in range(len(shares))]
    processes = []
    for share, output in zip(shares, outputs, strict=True):
        with output.open("w", encoding="utf-8") as file:
            command = [*_PYTEST, *share]
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=_environment(), stdout=file, stderr=subprocess.STDOUT
                )
            )
    texts, summaries, wrong = [], [], []
    try:
        for process, output in zip(processes, outputs, strict=True):
            stopped = ""
            try:
                code = process.wait(max(0.0, seconds - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                process.kill()
                code, stopped = process.wait(), "stopped: out of time"
            texts.append(output.read_text(encoding="utf-8", errors="replace") + stopped)
            lines = [line for line in texts[-1].splitlines() if line.strip()] or ["no output"]
            summaries.append(lines[-1])
            if code not in (0, _FOUND_NO_TESTS):
                wrong.append(lines[-1])
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    for output in outputs:
        output.unlink()
    return Tested("\n".join(texts), summaries, wrong)


def _collected(files: Sequence[str], seconds: float) -> list[str]:
    """Names of all tests of ``files``; none where they cannot be collected, which a run will tell."""
    command = [*_PYTEST, "--collect-only", *files]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return []
    if done.returncode:
        return []
    return [line for line in done.stdout.splitlines() if "::" in line]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
