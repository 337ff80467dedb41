"""What Triton's kernels take once compiled for a card: remembered under the hash of Triton's own cache.

``python -m tests.kernels.triton.compiled`` writes ``compiled.json`` anew.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.compiler.compiler import get_cache_invalidating_env_vars
from triton.runtime.cache import get_cache_key

from benchmarks.gpu.triton_aot import Resources, resources
from tests.kernels.compiled_record import CompiledRecord

RECORD = CompiledRecord(
    Path(__file__).parent / "compiled.json",
    "tests.kernels.triton.compiled",
    ("test_triton_aot.py", "test_layered_compiled.py", "test_catalogue_compiled.py"),
)


def resources_of(source: ASTSource, target: GPUTarget, options: Mapping[str, Any]) -> Resources:
    """Return what a kernel takes, compiled now or remembered.

    Raises:
        AssertionError: what is compiled now differs from what is remembered.
    """

    def compiling() -> list[int]:
        found = resources(triton.compile(source, target=target, options=dict(options)))
        return [found.registers, found.spilled, found.shared]

    key = key_of(source, target, options)
    return Resources(*RECORD.resolve(key, source.fn.__name__, compiling))


def key_of(source: ASTSource, target: GPUTarget, options: Mapping[str, Any]) -> str:
    """Return the hash of all that decides what a kernel is compiled to."""
    backend = make_backend(target)
    parsed = backend.parse_options({**options, **source.parse_options()})
    variables = get_cache_invalidating_env_vars()
    whole = get_cache_key(source, backend, parsed, env_vars=variables)
    return hashlib.sha256(whole.encode()).hexdigest()[:24]


if __name__ == "__main__":
    sys.exit(RECORD.write_anew())
