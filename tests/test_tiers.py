"""Collecting the tests where something is missing that some of them need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lares_kernels.binding.cpu_library import ISA_VARIABLE
from tests import tiers

ROOT = Path(__file__).parent.parent
# Where the CPU kernel's library is nowhere, as in a checkout that no compiler has built.
WITHOUT_LIBRARY = """
import sys
from pathlib import Path
from lares_kernels.binding import cpu_library
cpu_library.LIBRARY = Path("nowhere")
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]))
"""


def without_library(*arguments: str, ci: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest in a process that has no CPU kernel."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CI": ci, ISA_VARIABLE: ""},
        timeout=300,
        check=False,
    )


def test_files_of_the_tiers_are_there() -> None:
    for name in (*tiers.ONE_CASE_EACH, *tiers.LONG, *tiers.FIRST):
        assert (ROOT / name.split("::")[0]).is_file(), name


def test_without_a_cpu_kernel_all_tests_are_collected() -> None:
    done = without_library("--collect-only", "tests")
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(("ci", "ending"), [("", "1 skipped"), ("1", "1 error")])
def test_without_a_cpu_kernel_its_tests(ci: str, ending: str) -> None:
    done = without_library("tests/kernels/cpu/test_cpu.py::test_instruction_sets_nest", ci=ci)
    assert ending in done.stdout.splitlines()[-1], done.stdout
    assert "no CPU kernel: it was not built" in done.stdout or not ci
