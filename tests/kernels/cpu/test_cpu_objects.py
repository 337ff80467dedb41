"""No function crosses instruction sets: the objects of the CPU kernel, symbol by symbol.

They are those of the build folder, brought up to date first, so that in a checkout whose library is
built this takes seconds. csrc/README.md says what the rules are for.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.tools import needs

sys.path.insert(0, str(Path(__file__).parents[3] / "csrc"))
import build

ROOT = build.HERE.parent
FOLDER = ROOT / "build" / "csrc"
BASELINE = "baseline"
X86 = build.processor(build.compiler()) == "x86_64"


def set_of(path: Path) -> str:
    """The instruction set that an object is compiled for; ``BASELINE`` for what is compiled once."""
    return path.stem.removeprefix("kernels_") if path.stem.startswith("kernels_") else BASELINE


@pytest.fixture(scope="module")
def objects() -> list[Path]:
    """The objects of the library, up to date."""
    needs("readelf"), needs("objdump")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:  # several processes run tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        build.build_cpu(FOLDER / "checked" / "liblares_cpu.so", FOLDER)
    sets = build.instruction_sets(build.compiler())
    found = sorted(FOLDER.glob("*.o"))
    kept = [path for path in found if set_of(path) == BASELINE or set_of(path) in sets]
    return [path for path in kept if (ROOT / "csrc/cpu/once" / f"{path.stem}.cpp").is_file()] + [
        path for path in kept if set_of(path) != BASELINE
    ]


def functions(path: Path, bindings: tuple[str, ...]) -> set[str]:
    """Names of the functions with such a binding that an object defines."""
    listing = subprocess.run(["readelf", "-sW", path], capture_output=True, text=True, check=True)
    found = set()
    for line in listing.stdout.splitlines():
        words = line.split()
        # Number, value, size, type, binding, visibility, section, name.
        if len(words) >= 8 and words[3] == "FUNC" and words[4] in bindings and words[6] != "UND":
            found.add(words[7])
    return found


def crossing(objects: list[Path]) -> dict[str, list[str]]:
    """Weak and unique functions that a set's object and another define, with the objects' names.

    Objects of what is compiled once may repeat each other's: they are compiled with the same flags, and
    any of the copies runs on every processor.
    """
    where = defaultdict(list)
    for path in objects:
        for name in functions(path, ("WEAK", "UNIQUE")):
            where[name].append(path.name)
    once = {path.name for path in objects if set_of(path) == BASELINE}
    return {name: paths for name, paths in where.items() if len(paths) > 1 and not once >= {*paths}}


def foreign(path: Path) -> list[str]:
    """Functions that others can see and that do not stand in the namespace of the object's set."""
    name = set_of(path)
    inside = re.compile(f"_Z+NK?5lares{len(name)}{name}")  # as compilers spell lares::name
    return [f for f in functions(path, ("WEAK", "UNIQUE", "GLOBAL")) if not inside.match(f)]


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    """(first byte, instruction with its operands) of everything in an object."""
    command = ["objdump", "-d", "--insn-width=16", path]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        parts = line.split("\t")
        if len(parts) >= 3:
            yield parts[1].split()[0], parts[2]


WIDE = re.compile(r"%[yz]mm|^v[a-z]")  # a vector register past SSE's, or an instruction of AVX
WIDEST = re.compile(r"%zmm|%k[0-7]")
EVEX = "62"  # the first byte of AVX-512's instructions, and of nothing else in 64-bit code


def test_no_function_stands_in_two_objects(objects: list[Path]) -> None:
    assert crossing(objects) == {}


def test_a_set_defines_functions_of_its_namespace_alone(objects: list[Path]) -> None:
    for path in objects:
        if set_of(path) != BASELINE:
            assert foreign(path) == [], path.name


def test_nothing_of_a_set_runs_when_it_is_loaded(objects: list[Path]) -> None:
    for path in objects:
        if set_of(path) != BASELINE:
            sections = subprocess.run(["readelf", "-SW", path], capture_output=True, check=True)
            assert b".init_array" not in sections.stdout, path.name
            assert b".ctors" not in sections.stdout, path.name


@pytest.mark.skipif(not X86, reason="sets of x86-64")
def test_the_baseline_has_no_instruction_past_it(objects: list[Path]) -> None:
    for path in objects:
        if set_of(path) in (BASELINE, "generic"):
            past = [
                text for first, text in instructions(path) if WIDE.search(text) or first == EVEX
            ]
            assert past[:5] == [], path.name


@pytest.mark.skipif(not X86, reason="sets of x86-64")
def test_avx2_has_no_instruction_of_avx512(objects: list[Path]) -> None:
    (path,) = [path for path in objects if set_of(path) == "avx2"]
    listed = [*instructions(path)]
    assert any("%ymm" in text for _, text in listed)  # the search finds what is there
    assert [text for first, text in listed if WIDEST.search(text) or first == EVEX][:5] == []


# A function `shared` that C++ may define more than once, in the object of what a file's name says.
SHARED = "inline int shared(int i) { return i + 1; }\nint of_%s(int i) { return shared(i); }\n"


@pytest.mark.parametrize(
    ("names", "crosses"),
    [
        (("threads", "scratch"), False),
        (("threads", "kernels_generic"), True),
        (("kernels_avx2", "kernels_generic"), True),
        (("threads", "scratch", "kernels_avx2"), True),
    ],
)
def test_what_crosses(tmp_path: Path, names: tuple[str, ...], crosses: bool) -> None:
    needs("readelf")
    objects = [tmp_path / f"{name}.o" for name in names]
    for path in objects:
        command = [*build.compiler().split(), "-O0", "-x", "c++", "-c", "-", "-o", path]
        subprocess.run(command, input=SHARED % path.stem, text=True, check=True)
    found = crossing(objects)
    assert found == ({"_Z6sharedi": [path.name for path in objects]} if crosses else {})


@pytest.mark.parametrize("cxx", ["the usual", "g++", "clang++"])
def test_the_names_do_not_depend_on_what_is_inlined(cxx: str, tmp_path: Path) -> None:
    needs("readelf")
    if cxx == "the usual":
        cxx = build.compiler()
    elif shutil.which(cxx) is None:
        pytest.skip(f"there is no {cxx} here")
    for name, flags in [*build.instruction_sets(cxx).items()][-2:]:
        made = tmp_path / f"kernels_{name}.o"
        command = [*cxx.split(), *build.FLAGS.replace("-O3", "-O0").split(), *flags.split()]
        source = build.SOURCES / "per_isa" / "kernels.cpp"
        subprocess.run([*command, f"-DLARES_ISA={name}", "-c", source, "-o", made], check=True)
        assert foreign(made) == []
