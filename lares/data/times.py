"""A column of times as numbers that keep its order: whole numbers, real numbers or ISO 8601 dates.

A column has one form, that of its first time. Whole numbers stay whole: 64-bit nanoseconds never pass
through float64. Dates become whole microseconds since 1970, or nanoseconds where they have more than
six digits after the second.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.data.ids import is_text, whole_numbers
from lares.errors import DataError
from lares.names import shown

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DAY_TIME = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
_WHOLE, _REAL = "whole numbers", "real numbers"
# The forms of text, and what a text of each looks like.
_FORMS = {
    _WHOLE: r"[+-]?[0-9]+",
    _REAL: r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?",
    "dates": _DATE,
    "dates with time": _DATE + _DAY_TIME,
    "dates with time and zone": _DATE + _DAY_TIME + r" ?(z|Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)",
}
_WANTED = "write numbers, or dates as in 2026-03-01 or 2026-03-01T10:15:00.250+02:00"
_NO_TIME = ("", "nan", "nat", "null", "none")  # what programs write where there is no time
_NANOSECOND_DAYS = 106_750  # before and after 1970 that 64 bits of nanoseconds have room for
_EXACT_FLOAT = 2**53  # whole numbers below this are all exact in float64
_DAY = 86_400 * 10**9  # nanoseconds
_UNITS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
# Seconds since 1970 in 1990 and 2100, by which numbers are taken for times; likewise in ms, us, ns.
_EARLIEST, _LATEST = 631_152_000, 4_102_444_800

Place = Callable[[int], str]


class Times(NamedTuple):
    """A column of times.

    Attributes:
        values: (N,) int64, uint64 or float64; 0 where there is none.
        missing: (N,) whether the cell is empty.
        form: of the column, in words.
        nanoseconds: of a unit of the values, which count from 1970; 0 where they are numbers as such.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    form: str
    nanoseconds: int = 0

    def select(self, rows: Any) -> Times:
        """Return the times of some rows, given by any index of NumPy's."""
        return self._replace(values=self.values[rows], missing=self.missing[rows])

    def span(self) -> str:
        """Return the first and the last time in words: days, where they count from 1970."""
        values = self.values[~self.missing]
        if not len(values):
            return "none"
        unit = self.nanoseconds or nanoseconds_of_numbers(self)
        ends = (values.min(), values.max())
        if unit:
            seconds = (int(float(end) * unit // 10**9) for end in ends)
            return " to ".join(
                str(np.datetime64(each, "s").astype("datetime64[D]")) for each in seconds
            )
        return " to ".join(str(end) for end in ends)


def nanoseconds_of_numbers(times: Times) -> int:
    """Return the nanoseconds of a unit of numbers that would be times between 1990 and 2100; else 0."""
    values = times.values[~times.missing].astype(np.float64)
    for nanoseconds in _UNITS.values():
        seconds = 10**9 / nanoseconds
        if len(values) and ((values >= _EARLIEST * seconds) & (values <= _LATEST * seconds)).all():
            return nanoseconds
    return 0


def read_times(column: pa.ChunkedArray, place: Place) -> Times:
    """Return the times of a column (N,).

    Null, NaN and text that says that there is none are empty cells.

    Args:
        column: numbers, text, or one of Arrow's dates and timestamps.
        place: of a row, for messages.

    Raises:
        DataError: a cell is no time, or is one of another form than the first; or the column's type
            is no time's.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.large_string()), pa.large_string()
    if is_text(kind):
        return _text_times(column.cast(pa.large_string()), place)
    if pa.types.is_null(kind):
        return Times(np.zeros(len(column), np.int64), np.ones(len(column), dtype=bool), "no times")
    unit = 0
    if pa.types.is_timestamp(kind):
        column, unit = column.cast(pa.int64()), _UNITS[kind.unit]
        form = "timestamps" if kind.tz is None else "timestamps with zone"
    elif pa.types.is_date(kind):
        column = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(
            pa.int64()
        )
        form, unit = "dates", _DAY if pa.types.is_date32(kind) else _UNITS["ms"]
    elif pa.types.is_integer(kind):
        column = column.cast(pa.uint64() if kind == pa.uint64() else pa.int64())
        form = _WHOLE
    elif pa.types.is_floating(kind):
        column, form = column.cast(pa.float64()), _REAL
    else:
        raise DataError(
            f"{place(0)}: the time is {kind}; it must be a number, a date or a timestamp"
        )
    missing = column.is_null(nan_is_null=True).to_numpy()
    values = column.fill_null(0).to_numpy()
    if form == _REAL:
        values = np.where(missing, 0.0, values)
        _require_finite(values, place)
    return Times(values, missing, form, unit)


def compact(piece: pa.Array) -> pa.Array:
    """Return a piece of a column of times in less memory: text of whole numbers as numbers."""
    if pa.types.is_string_view(piece.type):
        piece = piece.cast(pa.large_string())  # Arrow has no functions for views
    if not is_text(piece.type) or pc.any(pc.match_substring(piece, "x", ignore_case=True)).as_py():
        return piece  # the cast would take hexadecimal numbers, too
    try:
        return piece.cast(pa.int64())
    except pa.ArrowInvalid:
        return piece


def join_pieces(pieces: list[pa.Array]) -> pa.ChunkedArray:
    """Return compact pieces as a column.

    Raises:
        pyarrow.ArrowException: their types do not go together.
    """
    if any(is_text(piece.type) for piece in pieces):
        pieces = [piece.cast(pa.large_string()) for piece in pieces]
    tables = [pa.table({"": piece}) for piece in pieces]
    return pa.concat_tables(tables, promote_options="permissive").column(0)


def form_of(text: str) -> str | None:
    """Return the form of a time that is written so; None if it is no time."""
    for form, pattern in _FORMS.items():
        if re.fullmatch(pattern, text):
            return form
    return None


def _one(form: str) -> str:
    """Return what a time of that form is, in words."""
    return "a " + form.replace("numbers", "number").replace("dates", "date")


def _require_finite(values: NDArray[Any], place: Place) -> None:
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError(f"{place(row)}: time {values[row]} is not finite")


def _text_times(column: pa.ChunkedArray, place: Place) -> Times:
    texts = pc.utf8_trim_whitespace(column)
    missing = texts.is_null()
    short = pc.less_equal(pc.binary_length(texts), max(map(len, _NO_TIME)))
    if pc.any(short).as_py():
        none = pc.is_in(pc.ascii_lower(texts), value_set=pa.array(_NO_TIME, pa.large_string()))
        missing = pc.or_kleene(missing, none)
        texts = pc.if_else(missing, pa.scalar(None, pa.large_string()), texts)
    absent = missing.to_numpy()
    if absent.all():
        return Times(np.zeros(len(absent), np.int64), absent, "no times")
    cells = _Cells(texts, int(np.argmin(absent)), place)
    values, form, unit = cells.parse()
    return Times(values.fill_null(0).to_numpy(), absent, form, unit)


class _Cells:
    """Texts (N,) of times, null where there is none, and how to say what is wrong with one.

    Args:
        texts: without blanks around them.
        first: row of the first that is there.
        place: of a row.
    """

    def __init__(self, texts: pa.ChunkedArray, first: int, place: Place) -> None:
        self.texts = texts
        self.first = first
        self.place = place

    def parse(self) -> tuple[pa.ChunkedArray, str, int]:
        """Return numbers (N,), null where there is none, their form, and the unit's nanoseconds."""
        text = self.texts[self.first].as_py()
        form = form_of(text)
        if form is None:
            raise DataError(f"{self.place(self.first)}: {shown(text)} is no time; {_WANTED}")
        if form in (_WHOLE, _REAL):
            return *self._numbers(), 0
        self._require(form)
        values, unit = self._dates(form)
        return values, form, unit

    def _numbers(self) -> tuple[pa.ChunkedArray, str]:
        self._require(_REAL)  # which whole numbers are, too
        plain = pc.replace_substring(self.texts, "+", "", max_replacements=1)
        plain = pc.if_else(pc.starts_with(self.texts, "+"), plain, self.texts)
        whole = pc.match_substring_regex(plain, _whole_cell(_FORMS[_WHOLE]))
        if pc.all(whole).as_py():
            numbers = whole_numbers(plain)
            if numbers is not None:
                return numbers, _WHOLE
            row = first_failing(plain, pa.int64())
            raise DataError(
                f"{self.place(row)}: time {shown(self.texts[row].as_py())} does not fit 64 bits"
            )
        numbers = plain.cast(pa.float64())
        values = numbers.fill_null(0).to_numpy()
        _require_finite(values, self.place)
        inexact = whole.fill_null(False).to_numpy() & (np.abs(values) >= _EXACT_FLOAT)
        if inexact.any():
            row = int(np.argmax(inexact))
            raise DataError(
                f"{self.place(row)}: time {shown(self.texts[row].as_py())} stands among real numbers, "
                "which have no room for all its digits; write all times as whole numbers"
            )
        return numbers, _REAL

    def _require(self, form: str) -> None:
        """Raise ``DataError`` unless every cell has ``form``."""
        fits = pc.match_substring_regex(self.texts, _whole_cell(_FORMS[form]))
        if pc.all(fits).as_py():
            return
        row = pc.index(fits, False).as_py()
        text = self.texts[row].as_py()
        other = form_of(text)
        if other is None:
            raise DataError(f"{self.place(row)}: {shown(text)} is no time; {_WANTED}")
        start = self.texts[self.first].as_py()
        raise DataError(
            f"{self.place(row)}: time {shown(text)} is {_one(other)}, but the first, "
            f"{shown(start)}, is {_one(form_of(start) or form)}; "
            "all times of a column must have one form"
        )

    def _dates(self, form: str) -> tuple[pa.ChunkedArray, int]:
        """Return whole numbers (N,) of cells that all look like ``form``, and a unit's nanoseconds."""
        if form == "dates":
            days = self._cast(self.texts, pa.date32()).cast(pa.int32())
            return days.cast(pa.int64()), _DAY
        zone = "UTC" if "zone" in form else None
        texts = self.texts
        if zone:
            texts = pc.replace_substring_regex(texts, " ?(z|Z|UTC)$", "Z")
            texts = pc.replace_substring_regex(texts, " ([+-][0-9:]+)$", r"\1")
        if pc.any(pc.match_substring_regex(texts, r"[.][0-9]{7}")).as_py():
            self._require_range(texts, zone)
            return self._cast(texts, pa.timestamp("ns", zone)).cast(pa.int64()), _UNITS["ns"]
        return self._cast(texts, pa.timestamp("us", zone)).cast(pa.int64()), _UNITS["us"]

    def _cast(self, texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            row = first_failing(texts, kind)
            raise DataError(
                f"{self.place(row)}: {shown(self.texts[row].as_py())} is no day and time that there is"
            ) from None

    def _require_range(self, texts: pa.ChunkedArray, zone: str | None) -> None:
        """Raise ``DataError`` unless nanoseconds have room for all times."""
        days = self._cast(pc.utf8_slice_codeunits(texts, 0, 10), pa.date32()).cast(pa.int32())
        outside = pc.greater(pc.abs(days.cast(pa.int64())), _NANOSECOND_DAYS)
        if pc.any(outside).as_py():
            row = pc.index(outside, True).as_py()
            raise DataError(
                f"{self.place(row)}: {shown(self.texts[row].as_py())} is too far from 1970 for "
                "nanoseconds, which other times of the column have"
            )


def _whole_cell(pattern: str) -> str:
    return f"^({pattern})$"


def first_failing(texts: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> int:
    """Return the first row of texts that ``kind`` cannot be made of; there is one."""
    low, high = 0, len(texts)  # all before low can be cast, those before high cannot
    while high - low > 1:
        middle = (low + high) // 2
        try:
            texts.slice(low, middle - low).cast(kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
