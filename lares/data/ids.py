"""Raw ids: whole numbers or names, as Arrow arrays in ascending order, and columns coded by them.

An id is a name unless it is written as whole numbers are: ``7`` is a number, ``007``, ``+7``, ``7.0``
and ``1E3`` are names. A column of text without types (CSV) becomes numbers only if every id in it is
one; so a number and its text stand for each other, and nothing else is taken for a number.

Ids are int64, uint64 (only where int64 has no room) or large_string arrays: text takes the memory of
its letters, however long the longest id is. Text ascends by code point.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.errors import DataError
from lares.names import shown

WHOLE_NUMBER = r"0|-?[1-9][0-9]*"
_WHOLE_NUMBER = re.compile(WHOLE_NUMBER)
_MOST_DIGITS = 20  # of a whole number in 64 bits, its sign included
_INT64, _UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)
_MERGED_AT_ONCE = 2_000_000  # values of pieces
_WORTH_WHILE = 0.6  # share of values that may be left for merging to go on
# Whole numbers below these are all exact.
_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}


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
        DataError: they are neither all whole numbers of 64 bits nor all text, or one is null.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        values = _from_python(values)
    if values.null_count:
        raise _null_id(pc.index(values.is_null(), True).as_py())
    if is_text(values.type):
        return values.cast(pa.large_string())
    if not pa.types.is_integer(values.type):
        raise DataError(f"ids are {values.type}; they must be whole numbers or text")
    if values.type == pa.uint64() and len(values) and pc.max(values).as_py() > _INT64.max:
        return values
    return values.cast(pa.int64())


def _from_python(values: Any) -> pa.Array:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise DataError(f"ids are {shown(values)}; they must be a list of whole numbers or texts")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise DataError(f"ids have shape {values.shape}; they must be a list, of one dimension")
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return pa.array(values)
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    nulls = [place for place, value in enumerate(listed) if value is None]
    if nulls:
        raise _null_id(nulls[0])
    if all(isinstance(value, str) for value in listed):
        try:
            return pa.array(listed, pa.large_string())
        except UnicodeEncodeError as error:
            raise DataError(f"an id is not text that UTF-8 can hold: {error}") from error
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise DataError(f"id {shown(value)} is neither a whole number nor text like all others")
    for kind in (pa.int64(), pa.uint64()):
        if all(_bounds(kind).min <= value <= _bounds(kind).max for value in listed):
            return pa.array(listed, kind)
    raise DataError("ids do not fit 64 bits, signed or unsigned")


def _null_id(place: int) -> DataError:
    return DataError(f"the id at place {place} (counted from 0) is null; every item needs one")


def _bounds(kind: pa.DataType) -> np.iinfo:
    return _UINT64 if kind == pa.uint64() else _INT64


def id_key(value: Any, kind: pa.DataType) -> int | str | None:
    """Return the form that ``value`` has among ids of type ``kind``; None if it can be none of them."""
    if isinstance(value, str):
        key: int | str | None = value if is_text(kind) else whole_number(value)
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        key = int(value)
        if is_text(kind):
            try:
                key = str(key)
            except ValueError:  # of more digits than Python writes
                return None
    else:
        return None
    if isinstance(key, str):
        try:
            key.encode()
        except (
            UnicodeEncodeError
        ):  # half of a surrogate pair, as from a command line that is not UTF-8
            return None
    elif key is not None and not _bounds(kind).min <= key <= _bounds(kind).max:
        return None
    return key


class Problem(Protocol):
    """Makes the error for a message about a column, and a row of it if one is given."""

    def __call__(self, message: str, row: int | None = None) -> DataError: ...


class Codes(NamedTuple):
    """A column as numbers of its values.

    Attributes:
        codes: (N,) int32 places among the values; -1 where the cell is empty.
        values: int64, uint64 or large_string in any order, some of them more than once; those that no
            row has may be among them.
        untyped: whether values that are text may be numbers.
    """

    codes: NDArray[np.int32]
    values: pa.Array
    untyped: bool

    def select(self, rows: Any) -> Codes:
        """Return the codes of some rows, given by any index of NumPy's."""
        return self._replace(codes=self.codes[rows])


class Coder:
    """Codes an id column that comes in pieces.

    A piece keeps its distinct values, and pieces are compared with each other as long as that makes
    them much fewer: neither all rows' text nor a table of ids that are all different is ever in memory.

    Null, NaN and text of nothing but blanks are empty cells.

    Args:
        typed: whether text is text because the file says so; else it may be numbers, and blanks around
            it are not part of it.
        problem: makes the error for a message about the column.
    """

    def __init__(self, typed: bool, problem: Problem) -> None:
        self._typed = typed
        self._problem = problem
        self._codes: list[NDArray[np.int32]] = []
        self._values: list[pa.Array] = []
        self._n_values = 0
        self._n_rows = 0
        # The first so many values, which the first so many pieces have, are different from each other.
        self._n_different = self._n_done = 0
        self._merging = True
        self._untyped = not typed

    def add(self, piece: pa.Array) -> None:
        """Take the next rows, of any type.

        Raises:
            DataError: no ids can have this type, or one is a number, but not a whole one.
        """
        kind = piece.type.value_type if pa.types.is_dictionary(piece.type) else piece.type
        encoded = self._readable(piece).dictionary_encode()
        values = encoded.dictionary
        codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int32)  # a copy
        empty = np.zeros(len(values) + 1, dtype=bool)  # the last is that of code -1
        if is_text(values.type):
            values = values if self._typed else pc.ascii_trim_whitespace(values)
            empty[:-1] = _flags(pc.equal(pc.utf8_trim_whitespace(values), ""))
        elif pa.types.is_floating(values.type):
            empty[:-1] = np.isnan(values.to_numpy())
        codes[empty[codes]] = -1
        plain, bad = self._plain(values, kind)
        if bad is not None:
            value = values[bad].as_py()
            whole = isinstance(value, float) and value.is_integer()
            reason = f"{kind} is not exact there" if whole else "ids must be whole numbers or text"
            row = self._n_rows + int(np.argmax(codes == bad))
            raise self._problem(f"holds {value}; {reason}", row)
        codes[codes >= 0] += self._n_values
        self._codes.append(codes)
        self._values.append(plain)
        self._n_values += len(values)
        self._n_rows += len(codes)
        if self._merging and self._n_values - self._n_different >= _MERGED_AT_ONCE:
            self._merge()

    def _merge(self) -> None:
        """Count equal values of pieces once, and see whether that is worth while."""
        before = self._n_values - self._n_different
        encoded = self._joined().dictionary_encode()  # in order of first appearance
        places = encoded.indices.to_numpy()
        for codes in self._codes[self._n_done :]:
            codes[codes >= 0] = places[codes[codes >= 0]]
        self._values = [encoded.dictionary]
        self._n_values = len(encoded.dictionary)
        self._merging = self._n_values - self._n_different < _WORTH_WHILE * before
        self._n_different, self._n_done = self._n_values, len(self._codes)

    def finish(self) -> Codes:
        """Return the codes of all rows.

        Raises:
            DataError: pieces have types that do not go together.
        """
        values = self._joined()
        self._values = []  # which would keep the memory twice
        codes = np.concatenate([np.empty(0, np.int32), *self._codes])
        return Codes(codes, values, self._untyped)

    def _joined(self) -> pa.Array:
        """Return the values of all pieces in one array."""
        pieces = [piece for piece in self._values if len(piece)]
        kinds = {piece.type for piece in pieces}
        if kinds == {pa.int64(), pa.uint64()}:
            if any(pc.min(piece).as_py() < 0 for piece in pieces):
                raise self._problem(
                    "holds negative numbers and some that only unsigned types can hold"
                )
            pieces = [piece.cast(pa.uint64()) for piece in pieces]
        elif len(kinds) > 1:
            raise self._problem("holds numbers in some files and text in others")
        if not pieces:
            return pa.array([], pa.int64())
        return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)

    def _readable(self, piece: pa.Array) -> pa.Array:
        """Return rows in a type that can be coded."""
        kind = piece.type
        if pa.types.is_dictionary(kind):
            piece, kind = piece.cast(kind.value_type), kind.value_type
        if pa.types.is_null(kind):
            return piece.cast(pa.int64())
        if pa.types.is_floating(kind):
            return piece.cast(pa.float64())
        if pa.types.is_binary_view(kind):
            piece, kind = piece.cast(pa.large_binary()), pa.large_binary()
        if is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            try:
                return piece.cast(pa.large_string())
            except pa.ArrowInvalid as error:
                raise self._problem(f"is not UTF-8 text: {error}") from error
        if not (pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
            raise self._problem(f"holds {kind}; ids must be whole numbers or text")
        return piece

    def _plain(self, values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int | None]:
        """Return distinct values as int64, uint64 or large_string, those of empty cells as anything;
        and the place of one that is no id, or None."""
        if pa.types.is_floating(values.type):
            numbers = np.where(np.isnan(values.to_numpy()), 0.0, values.to_numpy())
            wrong = (np.floor(numbers) != numbers) | (np.abs(numbers) >= _EXACT.get(kind, 2**53))
            if wrong.any():
                return values, int(np.argmax(wrong))
            return pa.array(numbers.astype(np.int64)), None
        if pa.types.is_decimal(values.type):
            self._untyped = (
                True  # beyond 64 bits they are text, which only the whole column can tell
            )
            listed: list[Decimal] = values.to_pylist()
            broken = [value != value.to_integral_value() for value in listed]
            if any(broken):
                return values, broken.index(True)
            return pa.array([str(int(value)) for value in listed], pa.large_string()), None
        return as_ids(values), None


def encode_column(column: pa.ChunkedArray, typed: bool, problem: Problem) -> Codes:
    """Return the codes of an id column, as :class:`Coder` makes them."""
    coder = Coder(typed, problem)
    for piece in column.chunks:
        coder.add(piece)
    return coder.finish()


def sort_codes(coded: Codes, as_text: bool = False) -> tuple[NDArray[np.int32], pa.Array]:
    """Return codes (N,) by ascending ids, and those ids, each of which some row has.

    Args:
        coded: without empty cells.
        as_text: keep ids text that could be numbers.
    """
    codes, ids, untyped = coded
    del coded  # what is not named here need not stay in memory
    used = np.bincount(codes, minlength=len(ids)) > 0
    if not used.all():
        codes = (np.cumsum(used, dtype=np.int32) - 1)[codes]
        ids = ids.filter(pa.array(used))
    if as_text:
        ids = ids.cast(pa.large_string())
    elif untyped and is_text(ids.type):
        ids = _numbers_if_all_are(ids)
    order = pc.sort_indices(ids)
    ids = ids.take(order)
    first = np.ones(len(ids), dtype=bool)
    first[1:] = _flags(pc.not_equal(ids[1:], ids[:-1]))
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order.to_numpy()] = np.cumsum(first, dtype=np.int32) - 1
    return rank[codes], ids if first.all() else ids.filter(pa.array(first))


def _flags(array: pa.Array) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = array.to_numpy(zero_copy_only=False)
    return flags


def _numbers_if_all_are(texts: pa.Array) -> pa.Array:
    if not pc.all(pc.match_substring_regex(texts, f"^({WHOLE_NUMBER})$"), min_count=0).as_py():
        return texts
    numbers = whole_numbers(texts)
    return texts if numbers is None else numbers  # numbers that 64 bits do not hold are names


def whole_numbers(texts: Any) -> Any:
    """Return whole numbers in text, an array or a column, as int64 or uint64; None if none has room."""
    for kind in (pa.int64(), pa.uint64()):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None
