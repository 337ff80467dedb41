"""Programs that some tests need and not every machine has."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def needs(tool: str) -> str:
    """Return the path of a program; where there is none, see :func:`cannot_run`."""
    found = shutil.which(tool)
    return found if found is not None else cannot_run(f"there is no {tool} here")


def cannot_run(reason: str) -> NoReturn:
    """Skip the test; fail it in CI (``CI`` is set), where a gate that does not run is no gate."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
