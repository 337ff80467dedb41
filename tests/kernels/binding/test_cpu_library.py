"""Libraries that are there and cannot be used: why, in words, and another backend runs the calls."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lares_kernels.binding import cpu_library
from lares_kernels.binding.structs import LaresCall, LaresCatalogue
from tests.kernels.tools import NEEDS_CPU_KERNEL, needs

HEADER = (Path(__file__).parents[3] / "csrc" / "lares_kernels.h").read_text()
USES = """
import sys
from pathlib import Path
from lares_kernels.binding import cpu_library
cpu_library.LIBRARY = Path(sys.argv[1])
import torch
from lares_kernels import BackendError, CoreConfig, RecurrentCore
from lares_kernels import available_backends, cpu_peak, use_backend
print(available_backends()["cpu"])
assert cpu_peak() is None
core = RecurrentCore(CoreConfig(8, 1, 8, 1)).eval()
with torch.no_grad():
    for _ in range(2):
        core(torch.randn(1, 2, 8))
try:
    with use_backend("cpu"):
        core(torch.randn(1, 2, 8))
except BackendError as error:
    print(error)
"""


def said_of(library: Path, before: str = "", *arguments: str) -> str:
    """Return what a process prints that meets this library, after what it does ``before``."""
    done = subprocess.run(
        [sys.executable, "-c", before + USES, str(library), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, cpu_library.ISA_VARIABLE: ""},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_functions_are_those_of_the_header() -> None:
    declared = set(re.findall(r"^LARES_API .*?(lares_\w+)\(", HEADER, re.MULTILINE))
    assert set(cpu_library._FUNCTIONS_OF_LIBRARY) == declared


@pytest.mark.parametrize("lacks", ["everything", "lares_look", "lares_asked_isa", "the structs"])
def test_a_library_of_another_version(lacks: str, tmp_path: Path) -> None:
    source, library = tmp_path / "old.c", tmp_path / "liblares_cpu.so"
    names = [n for n in cpu_library._FUNCTIONS_OF_LIBRARY if lacks not in (n, "everything")]
    # A library with other structs refuses all calls by their number, though their sizes are ours.
    sizes = [ctypes.sizeof(each) for each in (LaresCall, LaresCatalogue)]
    bodies = dict.fromkeys(names, "(void) { return 1; }")
    bodies["lares_sizes"] = f"(long long* to) {{ to[0] = {sizes[0]}; return to[1] = {sizes[1]}; }}"
    source.write_text("".join(f"int {name}{body}\n" for name, body in bodies.items()))
    subprocess.run([needs("cc"), "-shared", "-fPIC", source, "-o", library], check=True)
    found, refused = said_of(library).splitlines()
    assert found == "liblares_cpu.so is of another version: run `pip install -e .` again"
    assert refused.endswith(f"cannot run this call: {found}")


GROWN = """
import ctypes, sys
from lares_kernels.spec import parameters
if sys.argv[2] == "parameters":
    parameters.PLACES += 1
from lares_kernels.binding import structs
if sys.argv[2] == "catalogue":
    class Grown(structs.LaresCatalogue):
        _fields_ = [("more", ctypes.c_int64)]
    structs.LaresCatalogue = Grown
"""


@NEEDS_CPU_KERNEL
@pytest.mark.parametrize("grown", ["parameters", "catalogue"])
def test_a_library_that_was_not_built_since_a_struct_grew(grown: str) -> None:
    """Its number is ours: it would read past the end of what it is given."""
    found, refused = said_of(cpu_library.LIBRARY, GROWN, grown).splitlines()
    assert found == "liblares_cpu.so is of another version: run `pip install -e .` again"
    assert refused.endswith(f"cannot run this call: {found}")


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    library = tmp_path / "liblares_cpu.so"
    library.write_text("nothing that loads\n")
    assert said_of(library).startswith("liblares_cpu.so does not load: ")
