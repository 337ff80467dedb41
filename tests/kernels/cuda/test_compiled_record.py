"""What is remembered of a CUDA source: by all that it is compiled from, and held to what nvcc gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels import compiled_record
from tests.kernels.conftest import RecordOf
from tests.kernels.cuda import compiled
from tests.kernels.cuda.compiled import Unit
from tests.kernels.cuda.conftest import build, build_cuda
from tests.kernels.cuda.test_compiled import disassembler

FLAGS = ("-gencode", "arch=compute_80,code=[compute_80,sm_80]")
SOURCE = (
    '#include "number.hpp"\nextern "C" __global__ void put(int *at) { *at = NUMBER + ADDED; }\n'
)


@pytest.fixture
def nvcc() -> str:
    try:
        return str(build_cuda.nvcc())
    except build.BuildError as error:
        pytest.skip(f"compiling needs nvcc: {error}")


def unit(nvcc: str, folder: Path, number: int = 1, flags: tuple[str, ...] = ()) -> Unit:
    """A source and its header, written in a folder."""
    folder.mkdir(exist_ok=True)
    source = folder / "put.cu"
    source.write_text(SOURCE, encoding="ascii")
    (folder / "number.hpp").write_text(f"#define NUMBER {number}\n", encoding="ascii")
    flags = (*FLAGS, "-DADDED=1", *flags)
    return Unit(nvcc, disassembler(), source, flags, (folder,), folder / "put.fatbin")


def test_a_source_is_known_by_all_that_it_is_compiled_from(
    nvcc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = unit(nvcc, tmp_path / "one").key
    assert key == unit(nvcc, tmp_path / "another").key
    another_nvcc = tmp_path / "nvcc"
    another_nvcc.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo another || exec "{nvcc}" "$@"\n', encoding="utf-8"
    )
    another_nvcc.chmod(0o755)
    keys = [
        key,
        unit(nvcc, tmp_path / "header", number=2).key,
        unit(nvcc, tmp_path / "define", flags=("-UADDED", "-DADDED=2")).key,
        unit(nvcc, tmp_path / "level", flags=("-Xptxas", "-O1")).key,
        unit(str(another_nvcc), tmp_path / "version").key,
    ]
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-Xptxas -O2")
    keys.append(unit(nvcc, tmp_path / "environment").key)
    assert len(set(keys)) == 6


def test_a_wrong_entry_is_refused(
    nvcc: str, tmp_path: Path, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "RECORD", record_of({}))
    right = unit(nvcc, tmp_path / "right")
    (report,) = right.found.reports
    assert report[:2] == ("80", "put")
    assert report.registers > 0
    assert report[3:] == (0, 0, 0, 0)
    (made,) = right.found.instructions
    assert made[:2] == ("80", "put")
    assert made.total > 0
    assert set(made[3:]) == {0}

    wrong = report._replace(registers=report.registers + 1)
    known = {right.key: [[list(wrong)], [list(made)]]}
    monkeypatch.setattr(compiled, "RECORD", record_of(known))
    monkeypatch.setattr(compiled_record, "is_compiled_anew", lambda key: False)
    remembered = unit(nvcc, tmp_path / "remembered")
    assert remembered.found == ([wrong], [made])
    assert not remembered.target.exists()

    monkeypatch.setattr(compiled_record, "is_compiled_anew", lambda key: True)
    with pytest.raises(AssertionError, match=r"put\.cu takes .* write it anew"):
        _ = unit(nvcc, tmp_path / "anew").found
