"""Programs that tests need and Python does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(tool: str) -> str:
    """The path of a program; a test without it is skipped, but fails where CI runs."""
    path = shutil.which(tool)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tool} is not installed")
    return path
