"""The Triton backend where there is no GPU: its kernels under Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


def why_not() -> str | None:
    """Why the interpreter cannot run here, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    triton, numpy = (
        tuple(int(part) for part in version(name).split(".")[:2]) for name in ("triton", "numpy")
    )
    if triton < (3, 7) and numpy >= (2, 4):
        return "the interpreter of Triton before 3.7 needs NumPy before 2.4"
    return None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

INTERPRETED = sorted((Path(__file__).parent / "interpreted").glob("test_*.py"))


NO_TESTS = 5  # pytest's exit status where a file has none of a tier


@pytest.mark.parametrize("tier", ["not long", pytest.param("long", marks=pytest.mark.long)])
@pytest.mark.parametrize("path", INTERPRETED, ids=lambda path: path.stem)
def test_under_the_interpreter(path: Path, tier: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        tier,
        path,
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, env=environment
    )
    assert done.returncode in ((0, NO_TESTS) if tier == "long" else (0,)), done.stdout + done.stderr
