"""Histories as callers give them: which of their items can be ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lares.errors import DataError, NotAListError
from lares.names import shown
from lares.plain import plain

if TYPE_CHECKING:
    from lares.data.vocabulary import Vocabulary


def _numbered(number: int) -> str:
    return f"history {number}"


def checked_items(
    histories: Iterable[Any], name: Callable[[int], str] = _numbered
) -> list[list[int | str]]:
    """Return histories of raw ids as plain whole numbers and texts.

    Whole numbers of NumPy and PyTorch are whole numbers. A float is no id, not even 3.0: whoever
    gives one has lost whole numbers on the way, and may have lost more.

    Args:
        histories: of raw ids.
        name: says in messages which of them it is that has a number, counted from 0.

    Raises:
        DataError: a history is empty or no list, or an item is neither; the message gives its place.
        NotAListError: (a DataError and a TypeError) ``histories`` are no list.
    """
    wanted = "histories, each a list of item ids"
    return [
        _checked_history(name(number), history)
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


def rows_of_ids(
    vocabulary: Vocabulary,
    histories: Sequence[Sequence[int | str]],
    name: Callable[[int], str] = _numbered,
) -> list[list[int]]:
    """Return rows of raw ids, of histories as :func:`checked_items` gives them.

    Raises:
        DataError: an item is unknown; the message gives its place.
    """
    found = vocabulary.find(item for history in histories for item in history).tolist()
    rows, end = [], 0
    for number, history in enumerate(histories):
        start, end = end, end + len(history)
        rows.append(found[start:end])
        if 0 in rows[-1]:
            position = rows[-1].index(0)
            unknown = vocabulary.unknown(history[position])
            raise DataError(f"{name(number)}, position {position}: {unknown}")
    return rows


def _checked_history(name: str, history: Any) -> list[int | str]:
    items = elements(name, history, "item ids")
    if not items:
        raise DataError(f"{name} is empty; every history needs at least one item")
    if {int, str}.issuperset(map(type, items)):  # at once: one by one is slower than a small model
        return items
    return [
        _checked_item(f"{name}, position {position}", item) for position, item in enumerate(items)
    ]


def _checked_item(place: str, item: Any) -> int | str:
    if isinstance(item, str):
        return str(item)
    found = plain(item)
    if isinstance(found, bool) or not isinstance(found, int):
        raise DataError(
            f"item {shown(item)} in {place} is a {type(item).__name__}; "
            "ids are whole numbers or texts"
        )
    return found
