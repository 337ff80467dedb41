"""What installing leaves behind: libraries, or notes that say why there are none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lares_kernels import built

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The build's files alone, below a folder whose name needs care."""
    folder = tmp_path / "my wörk:1"
    folder.mkdir()
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in ("lares", "lares_kernels"):
        (folder / package).mkdir()
        shutil.copy(ROOT / package / "__init__.py", folder / package)
    return folder


def build_in_place(checkout: Path, **environment: str) -> str:
    """What ``setup.py build_ext --inplace`` prints."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    path = {"PATH": environment.pop("PATH", "/usr/bin:/bin")}
    done = subprocess.run(
        command, cwd=checkout, env=path | environment, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


def test_no_compiler(checkout: Path) -> None:
    said = build_in_place(checkout, CXX="no-such-compiler")
    assert "warning: liblares_cpu.so was not built: failed: CXX names 'no-such-compiler'" in said
    library = checkout / "lares_kernels" / "liblares_cpu.so"
    why = built.why_not_built(library)
    assert why == "failed: CXX names 'no-such-compiler', which is not there"
    left_out = built.why_not_built(library.with_name("liblares_cuda.so"))
    assert left_out.startswith("left out: there was no NVIDIA card")


def test_the_compilers_words_are_kept(checkout: Path) -> None:
    (checkout / "csrc/cpu/once/threads.cpp").write_text("#error this is what it says\n")
    build_in_place(checkout, LARES_CXXFLAGS="-O0")
    why = built.why_not_built(checkout / "lares_kernels" / "liblares_cpu.so")
    assert "this is what it says" in why


def test_cuda_is_asked_for_by_0_or_1(checkout: Path) -> None:
    said = build_in_place(checkout, CXX="no-such-compiler", LARES_CUDA="yes")
    assert "LARES_CUDA is 'yes'; it takes 1" in said
    build_in_place(checkout, CXX="no-such-compiler", LARES_CUDA="1", NVCC="no-such-nvcc")
    why = built.why_not_built(checkout / "lares_kernels" / "liblares_cuda.so")
    assert why == "failed: NVCC names 'no-such-nvcc', which is not there"


def test_a_failure_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    library = tmp_path / "liblares_cpu.so"
    built.say_once(library)
    built.note_of(library).write_text("left out: nobody asked\n")
    built.say_once(library)
    assert capsys.readouterr().err == ""
    built.note_of(library).write_text("failed: found no compiler\n")
    built.say_once(library)
    assert "liblares_cpu.so was not built" in capsys.readouterr().err
    built.say_once(library)
    assert capsys.readouterr().err == ""
    built.note_of(library).write_text("failed: it found no compiler again\n")
    library.touch()
    built.say_once(library)  # it was built by hand since
    assert capsys.readouterr().err == ""
