"""The C interface without torch: stored cases on this processor and on emulated ones."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lares_kernels.binding import cpu_library as lib
from tests.kernels.cpu import harness_cases, harness_file
from tests.kernels.problems import relative
from tests.kernels.tools import cannot_run, needs

CSRC = Path(__file__).parents[3] / "csrc"
ON_X86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64" or not sys.platform.startswith("linux"),
    reason="emulates one x86-64 processor, or another kind, on an x86-64 machine with Linux",
)
AARCH64_COMPILER = "aarch64-linux-gnu-g++"


def library() -> Path:
    """Where the compiled CPU kernel is."""
    if isinstance(lib.load(), str):
        cannot_run(f"no CPU kernel: {lib.load()}")
    return lib.LIBRARY


def compiled(compiler: str, folder: Path) -> Path:
    """The program."""
    program = folder / "harness"
    source = CSRC / "tests" / "harness.cpp"
    command = [needs(compiler), "-O1", "-std=c++17", source, "-ldl"]
    subprocess.run([*command, "-pthread", "-o", program], check=True, timeout=300)
    return program


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program for this machine."""
    return compiled("g++", tmp_path_factory.mktemp("harness"))


def sets_of_a_good_run(*command: str | Path) -> dict[str, list[str]]:
    """Run the program, which must find nothing wrong; the instruction sets by precision, best first."""
    done = subprocess.run(
        [*command, harness_cases.STORED], capture_output=True, text=True, timeout=900, check=False
    )
    # An emulator says of every thread what else such a processor would have.
    errors = [line for line in done.stderr.splitlines() if "TCG doesn't support" not in line]
    assert done.returncode == 0, (errors[-20:], done.stdout[-500:])
    assert done.stdout.endswith("cases: nothing wrong\n")
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[2].rstrip(":"): words[3:] for words in lines if words[:2] == ["sets", "for"]}


def test_on_this_processor(harness: Path) -> None:
    sets = sets_of_a_good_run(harness, library())
    for precision in lib.PRECISIONS:
        # Which is the best for bf16 is measured.
        assert sorted(sets[precision]) == sorted(lib.instruction_sets(precision))


@pytest.fixture(scope="module")
def late_openmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenMP runtime that counts its calls."""
    made = tmp_path_factory.mktemp("openmp") / "libgomp-late.so"
    source = CSRC / "tests" / "late_openmp.cpp"
    command = [needs("g++"), "-O1", "-std=c++17", "-shared", "-fPIC", source, "-pthread"]
    subprocess.run([*command, "-o", made], check=True, timeout=300)
    return made


def test_the_first_loop_runs_while_libraries_are_opened(tmp_path: Path) -> None:
    once, program, library = CSRC / "cpu" / "once", tmp_path / "loading", tmp_path / "empty.so"
    compiler = [needs("g++"), "-O1", "-std=c++17", "-pthread"]
    sources = [CSRC / "tests" / "loading.cpp", once / "threads.cpp", once / "pool.cpp"]
    subprocess.run([*compiler, f"-I{once}", *sources, "-ldl", "-o", program], check=True)
    empty = [*compiler, "-shared", "-fPIC", "-x", "c++", "/dev/null", "-o", library]
    subprocess.run(empty, check=True)
    for _ in range(20):
        subprocess.run([program, library], check=True, timeout=30)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="OpenMP is looked for on Linux")
def test_openmp_is_left_alone_while_its_threads_are_late(harness: Path, late_openmp: Path) -> None:
    def calls(late_us: int, **more: str) -> int:
        environment = {"LD_PRELOAD": str(late_openmp), "OPENMP_LATE_US": str(late_us), **more}
        command = [harness, library(), harness_cases.STORED]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=900, check=True, env=environment
        )
        assert done.stdout.endswith("cases: nothing wrong\n")
        (said,) = (line for line in done.stderr.splitlines() if line.startswith("OpenMP: "))
        return int(said.split()[1])

    always = calls(20_000, OPENMP_BINDS="1")
    assert always > 20
    # Once a second it is tried again.
    assert calls(20_000) < always / 3


@ON_X86_64
@pytest.mark.parametrize(
    ("processor", "sets"), [("Nehalem", ["generic"]), ("Haswell", ["avx2", "generic"])]
)
def test_on_older_processors(harness: Path, processor: str, sets: list[str]) -> None:
    emulator = needs("qemu-x86_64")
    found = sets_of_a_good_run(emulator, "-cpu", processor, harness, library())
    assert found == {"fp32": sets, "bf16": sets}


@ON_X86_64
@pytest.mark.long  # compiles the library
def test_on_aarch64(tmp_path: Path) -> None:
    emulator = [needs("qemu-aarch64"), "-L", "/usr/aarch64-linux-gnu", "-cpu"]
    target = tmp_path / "liblares_cpu.so"
    environment = {**os.environ, "CXX": needs(AARCH64_COMPILER)}
    command = [sys.executable, CSRC / "build.py", target, tmp_path / "build"]
    subprocess.run(command, env=environment, check=True, timeout=1200)
    program = compiled(AARCH64_COMPILER, tmp_path)
    for processor, of_bf16 in (("cortex-a72", []), ("max", ["neon_bf16"])):
        found = sets_of_a_good_run(*emulator, processor, program, target)
        assert found["fp32"] == ["neon"]
        assert sorted(found["bf16"]) == ["neon", *of_bf16]


def test_the_stored_cases_are_what_the_equations_give() -> None:
    stored = harness_file.read(harness_cases.STORED)
    made = harness_cases.entries()
    remake = "run `python -m tests.kernels.cpu.harness_cases` and look at what has changed"
    # A drawn state is in float32, with PyTorch's logarithm, whose last bit depends on the processor.
    drawn = [case.name for case in harness_cases.RECURRENCES if case.state == "normal"]
    fixed = 5  # words; then what errors are allowed, which depends on how PyTorch rounds
    tolerance = 0.0
    assert len(stored) == len(made), remake
    for old, new in zip(stored, made, strict=True):
        where = f"{' '.join(old.words)}: {remake}"
        if old.words[0] == "case":
            assert old.words == new.words, where
            tolerance = 1e-6 if old.words[1] in drawn else 1e-12
        assert old.words[:fixed] == new.words[:fixed], where
        for before, now in zip(old.words[fixed:], new.words[fixed:], strict=True):
            assert float(before) == pytest.approx(float(now), rel=0.5), where
        if old.numbers is None or new.numbers is None:
            continue
        if old.words[0] == "result" and old.numbers.is_floating_point():
            assert relative(new.numbers, old.numbers) < tolerance, where
        else:
            assert torch.equal(old.numbers, new.numbers), where
