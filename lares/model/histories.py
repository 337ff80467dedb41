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
        for position, item in enumerate(history):
            if isinstance(item, str):
                raise DataError(
                    f"item id {shown(item)} in history {number}, position {position}: ids are whole "
                    "numbers here, without a vocabulary"
                )
            if not 1 <= item < n_items:
                raise DataError(
                    f"item id {shown(item)} in history {number}, position {position}: "
                    f"ids run from 1 to {n_items - 1}"
                )
        checked.append(history)  # type: ignore[arg-type]  # whole numbers all
    return checked


def _checked_history(number: int, history: Any) -> list[int | str]:
    items = elements(f"history {number}", history, "item ids")
    if not items:
        raise DataError(f"history {number} is empty; every history needs at least one item")
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
