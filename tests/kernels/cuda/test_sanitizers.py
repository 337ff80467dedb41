"""The CUDA kernels' device code on the emulator, under sanitizers: ``pytest -m sanitizer``.

A barrier too few is a race here: warps are threads, and shared memory is memory they share.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.cuda.conftest import ROOT, build

pytestmark = pytest.mark.sanitizer


@pytest.mark.parametrize(("sanitizer", "calls"), [("address,undefined", 60), ("thread", 30)])
def test_random_calls(sanitizer: str, calls: int, tmp_path: Path) -> None:
    try:
        build.compiler()
    except build.BuildError as error:
        pytest.skip(f"the emulator needs a C++ compiler: {error}")
    program = tmp_path / "emulated"
    command = [sys.executable, ROOT / "csrc" / "build_cuda.py", "--stress", sanitizer, program]
    subprocess.run([*command, tmp_path / "build"], check=True, timeout=1200)
    done = subprocess.run(
        [program, str(calls)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{calls} calls: nothing wrong" in done.stdout
