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

INTERPRETED = Path(__file__).parent / "interpreted"
# As many processes as take about equally long; each spends seconds on importing.
GROUPS = {
    "fused": (
        "test_device_functions",
        "test_fused",
        "test_handover",
        "test_plan_failures",
        "test_seeds",
        "test_self_check",
        "test_sweep",
        "test_tf32",
        "test_tile_plan",
    ),
    "layered": (
        "test_catalogue",
        "test_catalogue_non_finite",
        "test_layered",
        "test_mixers",
        "test_non_finite",
        "test_pairs",
        "test_scratch",
    ),
}
_LONG_ALONE = ("test_fused", "test_layered", "test_mixers")
_LONG_WITH_OTHERS = sorted({*GROUPS["fused"], *GROUPS["layered"]} - {*_LONG_ALONE})
LONG_GROUPS = (
    *((name,) for name in _LONG_ALONE),
    _LONG_WITH_OTHERS[::2],
    _LONG_WITH_OTHERS[1::2],
)


def test_every_file_is_in_a_group() -> None:
    files = sorted(path.stem for path in INTERPRETED.glob("test_*.py"))
    assert sorted(name for group in GROUPS.values() for name in group) == files


@pytest.mark.parametrize("group", GROUPS)
def test_under_the_interpreter(group: str) -> None:
    run("not long", *GROUPS[group])


@pytest.mark.long
@pytest.mark.parametrize("group", range(len(LONG_GROUPS)))
def test_long_forms_under_the_interpreter(group: int) -> None:
    run("long", *LONG_GROUPS[group])


def run(tier: str, *names: str) -> None:
    """Run a tier of some files in a process of its own; their failures are this test's."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", tier]
    done = subprocess.run(
        [*command, *(INTERPRETED / f"{name}.py" for name in names)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
