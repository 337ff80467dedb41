"""Which architectures the CUDA kernels are compiled for; compilers are scripts that name theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.cuda.conftest import build, build_cuda

CUDA_12_4 = "sm_75 sm_80 sm_86 sm_87 sm_89 sm_90 sm_90a"
CUDA_13_0 = "sm_75 sm_80 sm_86 sm_87 sm_88 sm_89 sm_90 sm_90a sm_100 sm_100a sm_100f sm_120"


@pytest.fixture(autouse=True)
def no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LARES_CUDA_ARCHS", raising=False)
    monkeypatch.setattr(build_cuda, "present_architectures", list)


def compiler(folder: Path, names: str) -> str:
    """A compiler whose help names ``names``."""
    script = folder / "nvcc"
    script.write_text(f"#!/bin/sh\necho '{names}'\n", encoding="utf-8")
    script.chmod(0o755)
    return str(script)


def test_a_new_compiler_compiles_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_cuda.architectures(compiler(tmp_path, CUDA_13_0)) == ["80", "90a", "100a"]
    assert capsys.readouterr().out == ""


def test_an_old_compiler_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = compiler(tmp_path, CUDA_12_4)
    assert build_cuda.architectures(command) == ["80", "90a"]
    assert f"{command} does not know sm_100a: no machine code" in capsys.readouterr().out
    # Cards alone that it does not know: what is left is the PTX.
    monkeypatch.setattr(build_cuda, "present_architectures", lambda: ["120"])
    assert build_cuda.architectures(command) == []
    assert "does not know sm_120" in capsys.readouterr().out


def test_flags_of_the_environment_reach_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVCC", compiler(tmp_path, CUDA_13_0))
    monkeypatch.setenv("LARES_NVCCFLAGS", "-lineinfo")
    written = []
    monkeypatch.setattr(build_cuda, "make", lambda text, *places: written.append(text))
    build_cuda.build_cuda(tmp_path / "library.so", tmp_path)
    assert "compute_80" in written[0]
    assert " -lineinfo " in written[0]


def test_the_cards_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_cuda, "present_architectures", lambda: ["90"])
    assert build_cuda.architectures(compiler(tmp_path, CUDA_12_4)) == ["90"]


def test_what_is_asked_for_and_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = compiler(tmp_path, CUDA_12_4)
    monkeypatch.setenv("LARES_CUDA_ARCHS", "90a, 100a")
    with pytest.raises(build.BuildError, match="asks for 100a, which .* does not know"):
        build_cuda.architectures(command)
    monkeypatch.setenv("LARES_CUDA_ARCHS", "75 80")
    with pytest.raises(build.BuildError, match="need sm_80 or later, not sm_75"):
        build_cuda.architectures(command)
    monkeypatch.setenv("LARES_CUDA_ARCHS", "80 90a")
    assert build_cuda.architectures(command) == ["80", "90a"]


def test_one_ptx_for_all() -> None:
    flags = "-gencode arch=compute_80,code=[compute_80,sm_80,sm_90a]"
    assert build_cuda.code_flags(["80", "90a"]) == flags
    assert build_cuda.code_flags([]) == "-gencode arch=compute_80,code=[compute_80]"
