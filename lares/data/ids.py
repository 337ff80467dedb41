"""Raw ids: whole numbers or names, as Arrow arrays in ascending order, and columns coded by them.

An id is a name unless it is written as whole numbers are: ``7`` is a number, ``007``, ``+7``, ``7.0`` and
``1E3`` are names. A column of text without types (CSV) becomes numbers only if every id in it is one; so a
number and its text stand for each other, and nothing else is taken for a number.

Ids are int64, uint64 (only where int64 has no room) or large_string arrays: text takes the memory of its
letters, however long the longest id is. Text ascends by code point.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.errors import DataError

WHOLE_NUMBER = r"0|-?[1-9][0-9]*"
_WHOLE_NUMBER = re.compile(WHOLE_NUMBER)
_MOST_DIGITS = 20  # of a whole number in 64 bits, its sign included
_INT64, _UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)
_EXACT_FLOAT = 2**53  # whole numbers below this are all exact in float64


def whole_number(text: str) -> int | None:
    """Return the number that ``text`` is written as, or None where it is a name."""
    if len(text) > _MOST_DIGITS or not _WHOLE_NUMBER.fullmatch(text):
        return None
    return int(text)


def is_text(kind: pa.DataType) -> bool:
    """Return whether ``kind`` is one of Arrow's types of text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def as_ids(values: Any) -> pa.Array:
    """Return ids as an int64, uint64 or large_string array, in the order given.

    Args:
        values: whole numbers or strings: a list, a NumPy or an Arrow array.

    Raises:
        DataError: they are neither all whole numbers of 64 bits nor all text.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        values = _from_python(values)
    if is_text(values.type):
        return values.cast(pa.large_string())
    if not pa.types.is_integer(values.type):
        raise DataError(f"ids are {values.type}; they must be whole numbers or text")
    if values.type == pa.uint64() and len(values) and pc.max(values).as_py() > _INT64.max:
        return values
    return values.cast(pa.int64())


def _from_python(values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return pa.array(values)
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if all(isinstance(value, str) for value in listed):
        try:
            return pa.array(listed, pa.large_string())
        except UnicodeEncodeError as error:
            raise DataError(f"an id is not text that UTF-8 can hold: {error}") from error
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise DataError(f"id {value!r} is neither a whole number nor text like all others")
    for kind in (pa.int64(), pa.uint64()):
        if all(_bounds(kind).min <= value <= _bounds(kind).max for value in listed):
            return pa.array(listed, kind)
    raise DataError("ids do not fit 64 bits, signed or unsigned")


def _bounds(kind: pa.DataType) -> np.iinfo:
    return _UINT64 if kind == pa.uint64() else _INT64


def id_key(value: Any, kind: pa.DataType) -> int | str | None:
    """Return the form that ``value`` has among ids of type ``kind``; None if it can be none of them."""
    if isinstance(value, str):
        found: int | str | None = value if is_text(kind) else whole_number(value)
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        found = str(int(value)) if is_text(kind) else int(value)
    else:
        return None
    if isinstance(found, str):
        try:
            found.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, as from a command line that is not UTF-8
            return None
    elif found is not None and not _bounds(kind).min <= found <= _bounds(kind).max:
        return None
    return found


class Codes(NamedTuple):
    """A column as numbers of its distinct values.

    Attributes:
        codes: (N,) int32; -1 where the cell is empty.
        values: distinct values in any order; those that no row has may be among them.
    """

    codes: NDArray[np.int32]
    values: pa.Array

    def select(self, rows: Any) -> Codes:
        """Return the codes of some rows, given by any index of NumPy's."""
        return self._replace(codes=self.codes[rows])


def encode_column(column: pa.ChunkedArray, problem: Callable[[str], DataError]) -> Codes:
    """Return the distinct values of an id column and where they stand.

    Null, NaN and text of nothing but blanks are empty cells.

    Args:
        column: (N,) of any type.
        problem: makes the error for a message about the column.

    Raises:
        DataError: no ids can have this type.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return Codes(np.full(len(column), -1, dtype=np.int32), pa.array([], pa.int64()))
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    elif is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise problem(f"is not UTF-8 text: {error}") from error
    elif not (pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise problem(f"holds {kind}; ids must be whole numbers or text")
    encoded = column.dictionary_encode()
    if encoded.num_chunks == 0:
        return Codes(np.empty(0, dtype=np.int32), pa.array([], column.type))
    values = encoded.chunk(0).dictionary  # one for all chunks
    codes = np.concatenate([chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks])
    codes = codes.astype(np.int32, copy=False)
    empty = np.zeros(len(values) + 1, dtype=bool)  # the last is that of code -1
    if is_text(values.type):
        empty[:-1] = pc.equal(pc.utf8_trim_whitespace(values), "").to_numpy(zero_copy_only=False)
    elif pa.types.is_floating(values.type):
        empty[:-1] = np.isnan(values.to_numpy())
    if empty.any():
        codes[empty[codes]] = -1
    return Codes(codes, values)


def sort_codes(
    found: Codes, problem: Callable[[str], DataError], *, typed: bool, as_text: bool
) -> tuple[NDArray[np.int32], pa.Array]:
    """Return codes (N,) by ascending ids, and those ids, each of which some row has.

    Args:
        found: without empty cells.
        problem: makes the error for a message about the column.
        typed: whether text is text because the file says so; else it may be numbers.
        as_text: keep ids text, whatever they look like.

    Raises:
        DataError: an id is a number, but not a whole one.
    """
    used = np.bincount(found.codes, minlength=len(found.values)) > 0
    values = found.values if used.all() else found.values.filter(pa.array(used))
    ids = _plain_ids(values, problem, typed=typed, as_text=as_text)
    order = pc.sort_indices(ids).to_numpy()
    ids = ids.take(pa.array(order))
    # Values that differ may be one id: 3 and 3.00, or text with blanks around it.
    first = np.ones(len(ids), dtype=bool)
    first[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.cumsum(first, dtype=np.int32) - 1
    if not used.all():
        every = np.zeros(len(used), dtype=np.int32)
        every[used] = rank
        rank = every
    return rank[found.codes], ids if first.all() else ids.filter(pa.array(first))


def _plain_ids(
    values: pa.Array, problem: Callable[[str], DataError], *, typed: bool, as_text: bool
) -> pa.Array:
    """Return values (n,) of any type that ids may have as those of :func:`as_ids`."""
    if is_text(values.type):
        ids = values if typed else pc.ascii_trim_whitespace(values)
        if not typed and not as_text:
            ids = _numbers_if_all_are(ids)
    elif pa.types.is_floating(values.type):
        numbers = values.to_numpy()
        whole = np.isfinite(numbers) & (np.floor(numbers) == numbers)
        if not whole.all():
            bad = numbers[int(np.argmin(whole))]
            raise problem(f"holds {bad}; ids must be whole numbers or text")
        if (np.abs(numbers) >= _EXACT_FLOAT).any():
            bad = numbers[int(np.argmax(np.abs(numbers)))]
            raise problem(f"holds {bad:.0f} as a real number, which has no room for such ids")
        ids = pa.array(numbers.astype(np.int64))
    elif pa.types.is_decimal(values.type):
        ids = _numbers_if_all_are(pa.array(_decimal_texts(values, problem), pa.large_string()))
    else:
        ids = as_ids(values)
    return ids.cast(pa.large_string()) if as_text else ids


def _numbers_if_all_are(texts: pa.Array) -> pa.Array:
    if not pc.all(pc.match_substring_regex(texts, f"^({WHOLE_NUMBER})$"), min_count=0).as_py():
        return texts
    for kind in (pa.int64(), pa.uint64()):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return texts  # numbers that 64 bits do not hold are names


def _decimal_texts(values: pa.Array, problem: Callable[[str], DataError]) -> list[str]:
    texts = []
    value: Decimal
    for value in values.to_pylist():
        if value != value.to_integral_value():
            raise problem(f"holds {value}; ids must be whole numbers or text")
        texts.append(str(int(value)))
    return texts
