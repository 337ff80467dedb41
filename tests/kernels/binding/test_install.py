"""What installing leaves behind: libraries, or notes that say why there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lares_kernels.binding import built

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402
import build_cuda  # noqa: E402


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


def build_in_place(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``setup.py build_ext --inplace``, and what it printed."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    path = {"PATH": environment.pop("PATH", "/usr/bin:/bin")}
    return subprocess.run(
        command,
        cwd=checkout,
        env=path | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )


def test_no_compiler(checkout: Path) -> None:
    said = build_in_place(checkout, CXX="no-such-compiler").stderr
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
    said = build_in_place(checkout, CXX="no-such-compiler", LARES_CUDA="yes").stderr
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


def test_a_note_may_hold_any_bytes(tmp_path: Path) -> None:
    library = tmp_path / "liblares_cpu.so"
    built.note_of(library).write_bytes(b"failed: caf\xe9 \xff\n")
    assert built.why_not_built(library) == "failed: caf\ufffd \ufffd"


FAKE_CPP = 'case "$*" in *-dM*) echo "#define __x86_64__ 1";; esac\n'

# A compiler's file, or what CXX says itself, and what the note has to say.
BAD_COMPILERS = {
    "words_that_are_not_utf8": (
        b"#!/bin/sh\n" + FAKE_CPP.encode() + b"printf 'caf\\351 \\377'; exit 1\n",
        "{cxx}",
        "failed: the compiler failed",
    ),
    "no_shebang": (b"echo hello\n", "{cxx}", "failed: CXX names '{cxx}', which cannot be run"),
    "broken_elf": (b"\x7fELF\x02\x01\x01", "{cxx}", "failed: CXX names '{cxx}', which cannot"),
    "writes_nothing": (b"#!/bin/sh\nexit 0\n", "{cxx}", "failed: the compiler failed: it made no"),
    "blank": (b"", " ", "failed: CXX is ' ', which names no compiler"),
    "open_quote": (b"", 'g++ "', "failed: CXX is 'g++ \"', which a shell cannot read"),
}


@pytest.mark.parametrize("kind", BAD_COMPILERS)
def test_installing_goes_on_without_a_compiler_that_works(checkout: Path, kind: str) -> None:
    content, asked, expected = BAD_COMPILERS[kind]
    cxx = checkout.parent / "a-c++"
    cxx.write_bytes(content)
    cxx.chmod(0o755)
    old = checkout / "lares_kernels" / "liblares_cpu.so"
    old.write_bytes(b"of other sources")
    done = build_in_place(checkout, CXX=asked.format(cxx=cxx))
    assert done.returncode == 0, done.stderr
    why = built.why_not_built(old)
    assert why is not None
    assert why.startswith(expected.format(cxx=cxx)), why
    assert not old.exists()
    assert "Traceback" not in done.stderr


def test_installing_goes_on_where_nothing_can_be_built(checkout: Path) -> None:
    (checkout / "build").write_text("a file where a folder should be\n")
    done = build_in_place(checkout)
    assert done.returncode == 0, done.stderr
    why = built.why_not_built(checkout / "lares_kernels" / "liblares_cpu.so")
    assert why is not None
    assert why.startswith("failed: ")
    assert "build" in why


# What nvidia-smi prints, and how the note about CUDA's library begins.
CARDS = {
    "not_utf8": (rb"printf '9.0 caf\351\n'", "left out: there was no NVIDIA card"),
    "none": (b"echo No devices were found", "left out: there was no NVIDIA card"),
    "unknown": (b"echo '[N/A]'", "left out: there was no NVIDIA card"),
    "one": (b"echo 9.0", "failed: NVCC names 'no-such-nvcc'"),
    "one_of_two": (b"echo '[N/A]'; echo 8.9", "failed: NVCC names 'no-such-nvcc'"),
}


@pytest.mark.parametrize("kind", CARDS)
def test_installing_goes_on_whatever_nvidia_smi_says(checkout: Path, kind: str) -> None:
    printed, expected = CARDS[kind]
    program(checkout.parent / "bin" / "nvidia-smi", printed)
    done = build_in_place(
        checkout,
        PATH=f"{checkout.parent / 'bin'}:/usr/bin:/bin",
        CXX="no-such-compiler",
        NVCC="no-such-nvcc",
    )
    assert done.returncode == 0, done.stderr
    why = built.why_not_built(checkout / "lares_kernels" / "liblares_cuda.so")
    assert why is not None
    assert why.startswith(expected), why


def program(path: Path, script: bytes) -> Path:
    """A shell script at ``path``."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"#!/bin/sh\n" + script + b"\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("script", [rb"printf 'sm_90 caf\351\n'", b"exit 1", b"echo nothing"])
def test_nvcc_may_say_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: bytes
) -> None:
    nvcc = program(tmp_path / "nvcc", script)
    monkeypatch.setenv("NVCC", str(nvcc))
    monkeypatch.setenv("LARES_CUDA_ARCHS", "91")
    with pytest.raises(build.BuildError, match="LARES_CUDA_ARCHS asks for 91"):
        build_cuda.build_cuda(tmp_path / "made.so", tmp_path / "objects")


# Names that a shell, make or ninja reads otherwise. The last is no text.
NAMES = ["a|b", "a\nb", "a;b", "a&b", "(a)", "a\tb", "a,b", "$a", "a b:c", "'a\"", b"a\xffb"]


@pytest.mark.parametrize("name", NAMES)
def test_the_folders_name_may_be_any(checkout: Path, name: str | bytes) -> None:
    for folder in ("csrc/cpu/once", "csrc/cpu/per_isa"):  # little to compile
        for path in (checkout / folder).iterdir():
            path.unlink()
    (checkout / "csrc/cpu/a.hpp").write_text("inline int a() { return 1; }\n")
    (checkout / "csrc/cpu/once/a.cpp").write_text('#include "../a.hpp"\nint b() { return a(); }\n')
    (checkout / "csrc/cpu/per_isa/kernels.cpp").write_text("int c() { return 2; }\n")
    named = Path(os.fsdecode(os.fsencode(checkout.parent) + b"/" + os.fsencode(name)))
    checkout.rename(named)
    done = build_in_place(named, LARES_CPU_SETS="generic")
    assert done.returncode == 0, done.stderr
    library = named / "lares_kernels" / "liblares_cpu.so"
    assert library.is_file(), done.stderr
    assert built.why_not_built(library) is None
    again = subprocess.run(
        [*build.ninja(), "-n"], cwd=named / "build" / "csrc", capture_output=True, check=True
    )
    assert b"no work to do" in again.stdout, again.stdout  # what was compiled is kept
