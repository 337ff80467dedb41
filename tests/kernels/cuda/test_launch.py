"""How the CUDA kernels are launched, and where: stand-ins for CUDA's runtime and for cards."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from lares_kernels import BackendError
from lares_kernels.binding import cuda_library as library
from lares_kernels.cuda.backend import CudaBackend
from tests.kernels.cuda.conftest import ROOT, build, build_cuda
from tests.kernels.tools import cannot_run


@pytest.mark.parametrize("version", [13000, 12040])
def test_what_the_runtime_is_asked(version: int, tmp_path: Path) -> None:
    try:
        compiler = build_cuda.emulating()
    except build.BuildError as error:
        cannot_run(f"needs a C++ compiler: {error}")
    # Away from the device's primitives.hpp, which it would take before any other.
    shutil.copy(ROOT / "csrc/cuda/device/launch.hpp", tmp_path)
    launcher = ROOT / "csrc/tests/launcher"
    command = [
        *shlex.split(compiler), "-std=c++17", "-Wall", "-Wextra", f"-DCUDART_VERSION={version}",
        f"-I{tmp_path}", f"-I{launcher}", f"-I{ROOT / 'csrc'}",
        launcher / "launches.cpp", "-o", tmp_path / "launches",
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    done = subprocess.run([tmp_path / "launches"], capture_output=True, text=True, check=False)
    assert done.stdout == "launches are right\n", done.stderr


@pytest.fixture
def a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was built, and a GPU that torch sees."""
    monkeypatch.setattr(library, "load", object)
    monkeypatch.setattr(library, "device_type", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("a_card")
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (10, 0)])
def test_cards_without_the_instructions_are_not_used(
    capability: tuple[int, int], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = library.Card(132, 232448, (9, 0))
    cards = {number: library.Card(40, 65536, capability), 1 - number: others}
    monkeypatch.setattr(library, "card", cards.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: number != 0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: number)
    said = f"cuda:{number} has compute capability 7.5; the kernels need 8.0"
    assert CudaBackend().availability() == (said if capability < (8, 0) else None)


@pytest.mark.usefixtures("a_card")
def test_a_driver_too_old_for_the_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def card(number: int) -> library.Card:
        raise BackendError(f"cuda:{number} cannot be used: CUDA driver version is insufficient")

    monkeypatch.setattr(library, "card", card)
    assert "driver version is insufficient" in str(CudaBackend().availability())
