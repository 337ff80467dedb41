"""Fixtures for the tests of the ops."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.compiled_record import WRITE_TO, CompiledRecord

RecordOf = Callable[[dict[str, list[Any]]], CompiledRecord]


@contextlib.contextmanager
def _double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(params=[_double, lambda: torch.device("meta")], ids=["double", "meta"])
def other_defaults(
    request: pytest.FixtureRequest,
) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """A block in which new tensors are of another type, or nowhere, unless they say otherwise."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def record_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordOf:
    """Make a record of compiled kernels, by their hashes, apart from those of the tests."""
    monkeypatch.delenv("LARES_COMPILE_ANEW", raising=False)
    monkeypatch.delenv(WRITE_TO, raising=False)

    def make(known: dict[str, list[Any]]) -> CompiledRecord:
        path = tmp_path / "compiled.json"
        path.write_text(json.dumps(known), encoding="ascii")
        return CompiledRecord(path, "tests.kernels.somewhere.compiled", ())

    return make
