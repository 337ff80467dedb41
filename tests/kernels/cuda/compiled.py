"""What the CUDA kernels take once compiled for cards: remembered under a hash of what nvcc compiles.

That is the source as the preprocessor leaves it, headers and all, the flags and version of nvcc, and
the version of the disassembler.
``python -m tests.kernels.cuda.compiled`` writes ``compiled.json`` anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tests.kernels.compiled_record import CompiledRecord

RECORD = CompiledRecord(
    Path(__file__).parent / "compiled.json", "tests.kernels.cuda.compiled", ("test_compiled.py",)
)
# Flags that nvcc takes from the environment.
_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


class Report(NamedTuple):
    """What ptxas says of a kernel: its mangled name, and bytes of stack and spills a thread."""

    card: str
    name: str
    registers: int
    barriers: int
    stack: int
    stores: int
    loads: int


class Instructions(NamedTuple):
    """How many instructions of a kind a kernel has once disassembled, and its mangled name."""

    card: str
    name: str
    total: int
    products: int  # HMMA.16816.F32.BF16
    local: int  # LDL and STL
    minima: int  # FMNMX
    losing_nan: int  # of these
    shared_loads: int  # LDS.128
    streams: int  # LDG.E.128.CONSTANT
    streams_before: int  # any product
    copies: int  # LDGSTS
    exchanges: int  # MOVM


class Found(NamedTuple):
    """What is remembered of a source."""

    reports: list[Report]
    instructions: list[Instructions]


@dataclass(frozen=True)
class Unit:
    """A source, compiled for cards that are not here.

    Attributes:
        nvcc: the compiler.
        cuobjdump: the disassembler.
        source: a file of CUDA C++.
        flags: of the compiler; none names a place but ``-I``.
        folders: where headers are looked for.
        target: where the machine code is written once it is asked for.
    """

    nvcc: str
    cuobjdump: str
    source: Path
    flags: tuple[str, ...]
    folders: tuple[Path, ...]
    target: Path

    @cached_property
    def key(self) -> str:
        """The hash of all that decides what the source is compiled to."""
        versions = [_run(name, "--version").stdout for name in (self.nvcc, self.cuobjdump)]
        variables = [f"{name}={os.environ.get(name, '')}" for name in _VARIABLES]
        # Without -P it would name the places of its headers.
        text = _run(self.nvcc, "-E", "-Xcompiler", "-P", *self._arguments).stdout
        whole = "\0".join([*versions, *self.flags, *variables, self.source.name, text])
        return hashlib.sha256(whole.encode()).hexdigest()[:24]

    @cached_property
    def found(self) -> Found:
        """What each kernel takes and is made of on each card, compiled now or remembered."""
        reports, instructions = RECORD.resolve(self.key, self.source.name, self._compiled)
        return Found(
            [Report(*row) for row in reports], [Instructions(*row) for row in instructions]
        )

    def _compiled(self) -> list[list[list[str | int]]]:
        target = str(self.target)
        done = _run(self.nvcc, "-fatbin", "-Xptxas", "-v", *self._arguments, "-o", target)
        code = _run(self.cuobjdump, "-sass", target).stdout
        found = Found(reports_in(done.stderr), instructions_in(code))
        return [[list(row) for row in rows] for rows in found]

    @property
    def _arguments(self) -> list[str]:
        return [*self.flags, *(f"-I{path}" for path in self.folders), str(self.source)]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def reports_in(text: str) -> list[Report]:
    """Return what ptxas wrote with ``-v``."""
    found = []
    for part in text.split("Compiling entry function")[1:]:
        kernel = re.search(r"'(\w+)' for 'sm_(\w+)'", part)
        used = re.search(r"Used (\d+) registers, used (\d+) barriers", part)
        stack = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        assert kernel is not None, part
        assert used is not None, part
        assert stack is not None, part
        found.append(Report(kernel[2], kernel[1], *map(int, (*used.groups(), *stack.groups()))))
    return found


def instructions_in(text: str) -> list[Instructions]:
    """Return what a disassembly holds of each kernel."""
    before, *functions = text.split("Function :")
    card = ""  # is named before its first function
    found = []
    for previous, function in zip([before, *functions], functions, strict=False):
        card = (re.findall(r"\.target\s+sm_(\w+)", previous) or [card])[-1]
        minima = re.findall(r"\bFMNMX\S*", function)
        ahead = function.partition("HMMA")[0]
        found.append(
            Instructions(
                card,
                function.split()[0],
                _count(r"^\s+/\*[0-9a-f]{4,}\*/", function),
                function.count("HMMA.16816.F32.BF16"),
                _count(r"\b(?:LDL|STL)\b", function),
                len(minima),
                sum("NAN" not in name for name in minima),
                _count(r"\bLDS\.128\b", function),
                _count(r"\bLDG\.E\.128\.CONSTANT\b", function),
                _count(r"\bLDG\.E\.128\.CONSTANT\b", ahead),
                function.count("LDGSTS"),
                _count(r"\bMOVM\b", function),
            )
        )
    return found


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(RECORD.write_anew())
