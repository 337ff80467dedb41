"""Fixtures for the tests of the ops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch


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
