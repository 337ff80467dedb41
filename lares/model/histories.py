"""Histories as callers give them: which of their items can be ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lares.errors import DataError, NotAListError
from lares.names import shown
from lares.plain import plain


def checked_items(histories: Iterable[Any]) -> list[list[int | str]]:
    """Return histories of raw ids as plain whole numbers and texts.

    Whole numbers of NumPy and PyTorch are whole numbers. A float is no id, not even 3.0: whoever
    gives one has lost whole numbers on the way, and may have lost more.

    Raises:
        DataError: a history is empty or no list, or an item is neither; the message gives its place.
        NotAListError: (a DataError and a TypeError) ``histories`` are no list.
    """
    wanted = "histories, each a list of item ids"
    return [
        _checked_history(number, history)
        for number, history in enumerate(elements("histories", histories, wanted))
    ]


def elements(name: str, value: Any, wanted: str) -> list[Any]:
    """Return the elements of a list, or of anything else that has some but text.

    Raises:
        NotAListError: ``value``, which the message calls ``name``, has none; it says what is wanted.
    """
    try:
        if not isinstance(value, str | bytes):
            return list(value)
    except TypeError:  # also of arrays and tensors without dimensions, which seem to have elements
        if hasattr(value, "__next__") or getattr(value, "ndim", None):
            raise  # it fails on its own account
    raise NotAListError(
        f"{name} is {' '.join(shown(value).split())}; it must be a list of {wanted}"
    )


def checked_rows(histories: Iterable[Any], n_items: int) -> list[list[int]]:
    """Return histories of catalogue rows as plain whole numbers in ``1..n_items-1``.

    Raises:
        DataError: as :func:`checked_items`, or a row is out of range.
    """
    checked: list[list[int]] = []
    for number, history in enumerate(checked_items(histories)):
        rows = [item for item in history if isinstance(item, int) and 1 <= item < n_items]
        if len(rows) < len(history):
            raise _no_row(number, history, n_items)
        checked.append(rows)
    return checked


def _no_row(number: int, history: list[int | str], n_items: int) -> DataError:
    """Return the error that names the first item of a history which is no row."""
    for position, item in enumerate(history):
        place = f"item id {shown(item)} in history {number}, position {position}"
        if isinstance(item, str):
            return DataError(f"{place}: ids are whole numbers here, without a vocabulary")
        if not 1 <= item < n_items:
            return DataError(f"{place}: ids run from 1 to {n_items - 1}")
    raise AssertionError("every item is a row")


def _checked_history(number: int, history: Any) -> list[int | str]:
    items = elements(f"history {number}", history, "item ids")
    if not items:
        raise DataError(f"history {number} is empty; every history needs at least one item")
    if {int, str}.issuperset(map(type, items)):  # at once: one by one is slower than a small model
        return items
    return [_checked_item(number, position, item) for position, item in enumerate(items)]


def _checked_item(number: int, position: int, item: Any) -> int | str:
    if isinstance(item, str):
        return str(item)
    found = plain(item)
    if isinstance(found, bool) or not isinstance(found, int):
        raise DataError(
            f"item {shown(item)} in history {number}, position {position} is a {type(item).__name__}; "
            "ids are whole numbers or texts"
        )
    return found
