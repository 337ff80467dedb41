"""What compilers gave for cards that are not here, remembered by all that decides it.

Compiling takes half of what the long tests take, and gives the same for the same source, options and
compiler. A ``compiled.json`` holds what each came to under a hash of these: what differs by a line, or
another compiler, has another hash and is compiled. So is every sixteenth that is known, another one
every day, and all of them with ``LARES_COMPILE_ANEW=1``; what then differs from what is remembered is a
failure.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

WRITE_TO = "LARES_COMPILED_WRITE_TO"
_ANEW_EVERY = 16  # days


@dataclass(frozen=True)
class CompiledRecord:
    """A file of what was compiled.

    Attributes:
        path: the file, beside the tests.
        module: what writes it anew, run with ``python -m``.
        tests: names of the test files that look things up in it, beside it.
    """

    path: Path
    module: str
    tests: tuple[str, ...]

    @cached_property
    def known(self) -> dict[str, list[Any]]:
        """What each came to, by its hash."""
        if not self.path.exists():
            return {}
        found: dict[str, list[Any]] = json.loads(self.path.read_text(encoding="ascii"))
        return found

    def look_up(self, key: str) -> list[Any] | None:
        """Return what is remembered under a hash; None where that is nothing, or is compiled anew."""
        return None if is_compiled_anew(key) else self.known.get(key)

    def hold(self, key: str, name: str, found: list[Any]) -> None:
        """Hold what compiling ``name`` gave to what is remembered; write it where that is asked.

        Raises:
            AssertionError: they differ.
        """
        known = self.known.get(key)
        assert known is None or found == known or WRITE_TO in os.environ, (
            f"{name} takes {found}, but {self.path.name} says {known}: write it anew "
            f"(python -m {self.module}), and find out why the same kernel differs"
        )
        if WRITE_TO in os.environ:
            with open(os.environ[WRITE_TO], "a", encoding="ascii") as file:
                file.write(json.dumps([key, found]) + "\n")

    def resolve(self, key: str, name: str, compiling: Callable[[], list[Any]]) -> list[Any]:
        """Return what ``name`` came to: what is remembered, or what ``compiling`` gives now.

        Raises:
            AssertionError: what is compiled now differs from what is remembered.
        """
        found = self.look_up(key)
        if found is None:
            found = compiling()
            self.hold(key, name, found)
        return found

    def write_anew(self) -> int:
        """Compile all anew and remember it, unless a test fails; return pytest's exit code."""
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder, "lines")
            lines.touch()
            tests = [str(self.path.parent / name) for name in self.tests]
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-n",
                    "auto",
                    "-m",
                    "long or not long",
                    *tests,
                ],
                env={**os.environ, WRITE_TO: str(lines)},
                check=False,
            )
            if done.returncode:
                return done.returncode
            rows = sorted({line for line in lines.read_text(encoding="ascii").splitlines() if line})
        entries = [f'"{key}": {json.dumps(found)}' for key, found in map(json.loads, rows)]
        self.path.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="ascii")
        return 0


def is_compiled_anew(key: str) -> bool:
    """Tell whether what is known is compiled all the same."""
    if os.environ.get("LARES_COMPILE_ANEW") == "1" or WRITE_TO in os.environ:
        return True
    return (int(key, 16) - datetime.date.today().toordinal()) % _ANEW_EVERY == 0
