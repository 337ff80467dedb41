"""Which instruction sets the CPU kernel is compiled for; compilers are scripts that know some flags."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "csrc"))
import build

RULES = ("", "", "target", Path())


def compiler(folder: Path, processor: str, unknown: str = "-no-such-flag", body: str = "") -> str:
    """A compiler for a kind of processor that refuses a flag."""
    script = folder / "c++"
    script.write_text(
        f"""#!/bin/sh
case "$*" in *-dM*) echo "#define __{processor}__ 1"; exit 0;; *{unknown}*) exit 1;; esac
{body}
""",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return str(script)


def test_all_sets(tmp_path: Path) -> None:
    cxx = compiler(tmp_path, "x86_64")
    assert build.instruction_sets(cxx) == build.SETS["x86_64"]
    assert "LARES_SET(amx_bf16)" in build.rules(cxx, *RULES, stress=False)


def test_a_compiler_without_the_matrix_unit(tmp_path: Path) -> None:
    cxx = compiler(tmp_path, "x86_64", "-mamx")
    assert [*build.instruction_sets(cxx)] == ["avx512_bf16", "avx512", "avx2", "generic"]
    text = build.rules(cxx, *RULES, stress=False)
    assert "LARES_SET(avx2)" in text
    assert "amx" not in text.lower()


def test_a_compiler_without_bfloat16(tmp_path: Path) -> None:
    cxx = compiler(tmp_path, "aarch64", "+bf16")
    assert [*build.instruction_sets(cxx)] == ["neon"]
    assert [*build.instruction_sets(compiler(tmp_path, "aarch64"))] == ["neon_bf16", "neon"]


def test_a_compiler_that_spells_bfloat16_otherwise(tmp_path: Path) -> None:
    cxx = compiler(tmp_path, "aarch64", "-march=")
    assert build.instruction_sets(cxx) == {"neon_bf16": "-mcpu=generic+bf16", "neon": ""}


def test_sets_may_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cxx = compiler(tmp_path, "x86_64")
    monkeypatch.setenv("LARES_CPU_SETS", "generic avx2")
    assert [*build.instruction_sets(cxx)] == ["avx2", "generic"]
    for wrong in ("avx2", "generic sse9"):
        monkeypatch.setenv("LARES_CPU_SETS", wrong)
        with pytest.raises(build.BuildError, match=f"LARES_CPU_SETS is '{wrong}'"):
            build.instruction_sets(cxx)


def test_another_processor(tmp_path: Path) -> None:
    assert [*build.instruction_sets(compiler(tmp_path, "riscv"))] == ["generic"]


def test_an_assembler_without_the_matrix_unit(tmp_path: Path) -> None:
    # The compiler knows the flags, and yet nothing with such an instruction comes out.
    cxx = compiler(tmp_path, "x86_64", body="! grep -q _tile_dpbf16ps")
    assert [*build.instruction_sets(cxx)] == ["avx512_bf16", "avx512", "avx2", "generic"]
