"""The CUDA kernels on the emulator of csrc/tests/emulator, as backend ``cuda`` of CPU tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock  # torch depends on it

from lares_kernels import backends
from lares_kernels.cuda import library

ROOT = Path(__file__).parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402
import build_cuda  # noqa: E402


def forget() -> None:
    """Look for library and backends again."""
    for cached in (library.load, library.card, backends._choose):
        cached.cache_clear()


@pytest.fixture(scope="session")
def emulator_library() -> Path:
    """The kernels compiled for the emulator; ninja keeps what has not changed."""
    target = ROOT / "build" / "emulator" / "tested" / "libemulator.so"
    try:
        build.compiler()
        build.ninja()
    except build.BuildError as error:
        pytest.skip(f"the emulator needs a C++ compiler and ninja: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):  # other processes of this test run want it, too
        build_cuda.build_emulator(target, ROOT / "build" / "emulator")
    return target


@pytest.fixture
def emulator(emulator_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Backend ``cuda`` runs on the emulator."""
    monkeypatch.setenv(library.ENVIRONMENT_VARIABLE, str(emulator_library))
    forget()
    yield
    monkeypatch.undo()
    forget()
