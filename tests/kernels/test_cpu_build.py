"""Which instruction sets the CPU kernel is compiled for; compilers are scripts that know some flags."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "csrc"))
import build


def compiler(folder: Path, unknown: str) -> str:
    """A compiler that refuses a flag."""
    script = folder / "c++"
    script.write_text(f'#!/bin/sh\ncase "$*" in *{unknown}*) exit 1;; esac\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)


@pytest.fixture(autouse=True)
def an_x86_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_all_sets(tmp_path: Path) -> None:
    cxx = compiler(tmp_path, "none")
    assert build.instruction_sets(cxx) == build.X86_SETS
    assert "LARES_WITH_AMX" in build.rules(cxx, "", "", "target", stress=False)


def test_a_compiler_without_the_matrix_unit(tmp_path: Path) -> None:
    cxx = compiler(tmp_path, "-mamx")
    assert [*build.instruction_sets(cxx)] == ["avx512_bf16", "avx512", "avx2", "generic"]
    text = build.rules(cxx, "", "", "target", stress=False)
    assert "LARES_WITH_X86" in text
    assert "amx" not in text.lower()


def test_another_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    cxx = compiler(tmp_path, "-m")
    assert [*build.instruction_sets(cxx)] == ["generic"]


def test_an_assembler_without_the_matrix_unit(tmp_path: Path) -> None:
    # The compiler knows the flags, and yet nothing with such an instruction comes out.
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\n! grep -q _tile_dpbf16ps\n", encoding="utf-8")
    script.chmod(0o755)
    assert "amx_bf16" not in build.instruction_sets(str(script))
