"""What Triton's kernels take once compiled for a card, remembered by what they are compiled from.

Compiling takes half of what the long tests take, and gives the same for the same kernel, options and
compiler, whose hash Triton's own cache goes by. ``compiled.json`` holds what each came to under that
hash: a kernel that differs by a line, or another Triton, has another hash and is compiled. So is every
sixteenth that is known, another one every day, and all of them with ``LARES_COMPILE_ANEW=1``; what then
differs from what is remembered is a failure. ``python -m tests.kernels.compiled`` writes the file anew.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.compiler.compiler import get_cache_invalidating_env_vars
from triton.runtime.cache import get_cache_key

from benchmarks.gpu.triton_aot import Resources, resources

RECORD = Path(__file__).parent / "compiled.json"
TESTS = ("test_triton_aot.py", "test_layered_compiled.py", "test_catalogue_compiled.py")
_WRITE_TO = "LARES_COMPILED_WRITE_TO"
_ANEW_EVERY = 16  # days


def resources_of(source: ASTSource, target: GPUTarget, options: Mapping[str, Any]) -> Resources:
    """Return what a kernel takes, compiled now or remembered.

    Raises:
        AssertionError: what is compiled now differs from what is remembered.
    """
    key = key_of(source, target, options)
    known = record().get(key)
    if known is not None and not is_compiled_anew(key):
        found = Resources(*known)
    else:
        found = resources(triton.compile(source, target=target, options=dict(options)))
        assert known is None or found == Resources(*known), (
            f"{source.fn.__name__} takes {found}, but {RECORD.name} says {known}: write it anew "
            "(python -m tests.kernels.compiled), and find out why the same kernel differs"
        )
    if _WRITE_TO in os.environ:
        line = json.dumps([key, found.registers, found.spilled, found.shared])
        with open(os.environ[_WRITE_TO], "a", encoding="ascii") as file:
            file.write(line + "\n")
    return found


def key_of(source: ASTSource, target: GPUTarget, options: Mapping[str, Any]) -> str:
    """Return the hash of all that decides what a kernel is compiled to."""
    backend = make_backend(target)
    parsed = backend.parse_options({**options, **source.parse_options()})
    variables = get_cache_invalidating_env_vars()
    whole = get_cache_key(source, backend, parsed, env_vars=variables)
    return hashlib.sha256(whole.encode()).hexdigest()[:24]


def is_compiled_anew(key: str) -> bool:
    """Tell whether a known kernel is compiled all the same."""
    if os.environ.get("LARES_COMPILE_ANEW") == "1" or _WRITE_TO in os.environ:
        return True
    return (int(key, 16) - datetime.date.today().toordinal()) % _ANEW_EVERY == 0


@cache
def record() -> dict[str, list[int]]:
    """Return registers, spills and shared memory of each kernel that was compiled, by its hash."""
    if not RECORD.exists():
        return {}
    found: dict[str, list[int]] = json.loads(RECORD.read_text(encoding="ascii"))
    return found


def main() -> int:
    """Compile all anew and remember it, unless a test fails; return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines")
        lines.touch()
        tests = [str(RECORD.parent / name) for name in TESTS]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "long or not long", *tests],
            env={**os.environ, _WRITE_TO: str(lines)},
            check=False,
        )
        if done.returncode:
            return done.returncode
        rows = sorted({line for line in lines.read_text(encoding="ascii").splitlines() if line})
    entries = [f'"{key}": {json.dumps(numbers)}' for key, *numbers in map(json.loads, rows)]
    RECORD.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
