"""The kernels under sanitizers, on random calls: ``pytest -m sanitizer`` (compiles for a minute)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lares_kernels.binding.cpu_library import instruction_sets
from tests.kernels.tools import NEEDS_CPU_KERNEL

pytestmark = [
    pytest.mark.sanitizer,
    NEEDS_CPU_KERNEL,
]
BUILD = Path(__file__).parents[3] / "csrc" / "build.py"


@pytest.mark.parametrize(("sanitizer", "calls"), [("address,undefined", 60), ("thread", 24)])
def test_random_calls(sanitizer: str, calls: int, tmp_path: Path) -> None:
    program = tmp_path / "stress"
    command = [sys.executable, BUILD, "--stress", sanitizer, program, tmp_path / "build"]
    sets = instruction_sets("bf16")  # others would be compiled for minutes and not run
    environment = {**os.environ, "LARES_CPU_SETS": " ".join(sets)}
    subprocess.run(command, check=True, timeout=600, env=environment)
    for name in sets:
        done = subprocess.run(
            [program, str(calls), name], capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert f"{calls} calls on {name}: nothing wrong" in done.stdout
