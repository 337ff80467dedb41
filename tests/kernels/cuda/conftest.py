"""The CUDA kernels on the emulator of csrc/tests/emulator, as backend ``cuda`` of CPU tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock  # torch depends on it

from lares_kernels.binding import cuda_library as library
from lares_kernels.registry import backends

ROOT = Path(__file__).parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402
import build_cuda  # noqa: E402


def forget() -> None:
    """Look for library and backends again."""
    for cached in (library.load, library.card):
        cached.cache_clear()
    backends.REFINE.forget()


@pytest.fixture(scope="session")
def emulator_library(request: pytest.FixtureRequest) -> Path:
    """The kernels compiled for the emulator; ninja keeps what has not changed.

    Tests that are not long do with the narrowest ones, which take a fifth of the time to compile.
    """
    long = any(item.get_closest_marker("long") for item in request.session.items)
    shapes = build_cuda.SHAPES if long else tuple(s for s in build_cuda.SHAPES if s[1] == 32)
    folder = ROOT / "build" / "emulator"
    target = folder / ("all" if long else "narrow") / "libemulator.so"
    try:
        build.compiler()
        build.ninja()
    except build.BuildError as error:
        pytest.skip(f"the emulator needs a C++ compiler and ninja: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # other processes of this test run want it, too
        build_cuda.build_emulator(target, folder, shapes)
    return target


@pytest.fixture
def emulator(emulator_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Backend ``cuda`` runs on the emulator."""
    monkeypatch.setenv(library.ENVIRONMENT_VARIABLE, str(emulator_library))
    forget()
    yield
    monkeypatch.undo()
    forget()
