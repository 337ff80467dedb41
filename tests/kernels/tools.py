"""Programs and kernels that some tests need and not every machine has."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from lares_kernels.binding import cpu_library

# For tests, and whole files, that compute with the compiled CPU kernel.
NEEDS_CPU_KERNEL = pytest.mark.usefixtures("cpu_kernel")


def needs(tool: str) -> str:
    """Return the path of a program; where there is none, see :func:`cannot_run`."""
    found = shutil.which(tool)
    return found if found is not None else cannot_run(f"there is no {tool} here")


def cannot_run(reason: str) -> NoReturn:
    """Skip the test; fail it in CI (``CI`` is set), where a gate that does not run is no gate."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def cpu_sets(precision: str = "fp32") -> list[str]:
    """Return the instruction sets of the CPU kernel that serve a precision; none without a kernel."""
    return [] if isinstance(cpu_library.load(), str) else cpu_library.instruction_sets(precision)
