"""What the CUDA kernels take once compiled for cards: remembered under a hash of what nvcc compiles.

That is the source as the preprocessor leaves it, headers and all, and the flags and version of nvcc.
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


@dataclass(frozen=True)
class Unit:
    """A source, compiled for cards that are not here.

    Attributes:
        nvcc: the compiler.
        source: a file of CUDA C++.
        flags: of the compiler; none names a place but ``-I``.
        folders: where headers are looked for.
        target: where the machine code is written once it is asked for.
    """

    nvcc: str
    source: Path
    flags: tuple[str, ...]
    folders: tuple[Path, ...]
    target: Path

    @cached_property
    def key(self) -> str:
        """The hash of all that decides what the source is compiled to."""
        version = self._run("--version").stdout
        variables = [f"{name}={os.environ.get(name, '')}" for name in _VARIABLES]
        # Without -P it would name the places of its headers.
        text = self._run("-E", "-Xcompiler", "-P", *self._arguments).stdout
        whole = "\0".join([version, *self.flags, *variables, self.source.name, text])
        return hashlib.sha256(whole.encode()).hexdigest()[:24]

    @cached_property
    def reports(self) -> list[Report]:
        """What each kernel takes on each card, compiled now or remembered."""
        rows = RECORD.look_up(self.key)
        return self._compiled if rows is None else [Report(*row) for row in rows]

    @property
    def machine_code(self) -> Path:
        """The kernels of every card, compiled now; what they take is held to what is remembered."""
        assert self._compiled
        return self.target

    @cached_property
    def _compiled(self) -> list[Report]:
        done = self._run("-fatbin", "-Xptxas", "-v", *self._arguments, "-o", str(self.target))
        found = reports_in(done.stderr)
        RECORD.hold(self.key, self.source.name, [list(report) for report in found])
        return found

    @property
    def _arguments(self) -> list[str]:
        return [*self.flags, *(f"-I{path}" for path in self.folders), str(self.source)]

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.nvcc, *arguments], capture_output=True, text=True, timeout=900, check=False
        )
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


if __name__ == "__main__":
    sys.exit(RECORD.write_anew())
