"""Threads of commands sleep soon, unless the environment says otherwise."""

from __future__ import annotations

import os
import sys

import pytest

from lares.cli.waiting import wait_briefly


@pytest.mark.parametrize(
    ("given", "imported", "found"),
    [
        ({}, False, "3000"),
        ({}, True, None),  # too late
        ({"GOMP_SPINCOUNT": "7"}, False, "7"),
        ({"OMP_WAIT_POLICY": "active"}, False, None),
    ],
)
def test_what_the_environment_says_goes(
    given: dict[str, str], imported: bool, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # put back afterwards
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if not imported:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "torch", sys)
    wait_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == found
