"""Rows that are left out on purpose: by a condition, by time, as repeats. Notes say how many."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.data.conditions import Bound, Comparison, Condition, columns_of, parse_condition
from lares.data.dataset import Interactions, user_order
from lares.data.ids import is_text
from lares.data.tables import Table
from lares.data.times import Times, first_failing, nanoseconds_of_numbers
from lares.errors import ConfigError, DataError
from lares.names import shown

_COMPARED = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class FilteredTable(Table):
    """The rows of a table that fulfil a condition. An empty cell fulfils no comparison.

    Args:
        table: of all rows.
        where: the condition, as :func:`lares.data.conditions.parse_condition` reads it.

    Raises:
        ConfigError: it is no condition.
        DataError: the table lacks a column of it.
    """

    def __init__(self, table: Table, where: str) -> None:
        self._table = table
        self._where = where
        self._condition = parse_condition(where, "data.where")
        self.path, self.names, self.form = table.path, table.names, table.form
        self.typed = table.typed
        missing = [name for name in columns_of(self._condition) if name not in table.names]
        if missing:
            raise DataError(
                f"data.where is {shown(where)}, but {table.path} has no column "
                f"{', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, table.names))}"
            )
        self._kept: list[NDArray[np.bool_]] = []

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self._kept = []
        first = 0
        for batch in self._table.batches(
            list(dict.fromkeys((*columns, *columns_of(self._condition))))
        ):
            fulfilled = self._evaluate(self._condition, batch, first).fill_null(False)
            self._kept.append(fulfilled.to_numpy(zero_copy_only=False))
            yield batch.select(list(columns)).filter(fulfilled)
            first += batch.num_rows

    def require(self, columns: Sequence[str]) -> None:
        self._table.require(columns)

    def head(self, rows: int) -> pa.Table:
        return self._table.head(rows)

    def place(self, row: int) -> str:
        return self._table.place(int(np.flatnonzero(np.concatenate(self._kept))[row]))

    def note(self) -> str:
        """Return what to say about rows left out, once all are read; "" for none.

        Raises:
            DataError: none is left.
        """
        rows, kept = (sum(map(count, self._kept)) for count in (len, np.count_nonzero))
        if rows and not kept:
            raise DataError(f"{self.path}: none of {rows:,} rows fulfils data.where, {self._where}")
        return _left_out(int(rows - kept), int(rows), f"do not fulfil {self._where}")

    def _evaluate(self, condition: Condition, batch: pa.RecordBatch, first: int) -> pa.Array:
        """Return whether rows (N,) fulfil a condition, null where an empty cell hides it.

        ``first`` is the number of the batch's first row.
        """
        if not isinstance(condition, Comparison):
            parts = [self._evaluate(part, batch, first) for part in condition.parts]
            if condition.word == "not":
                return pc.invert(parts[0])
            return functools.reduce(
                pc.and_kleene if condition.word == "and" else pc.or_kleene, parts
            )
        compare, column = _COMPARED[condition.sign], condition.column
        as_text = isinstance(condition.values[0], str)
        cells = batch.column(column)
        try:
            if pa.types.is_dictionary(cells.type):
                cells = cells.cast(cells.type.value_type)
            if as_text:
                cells = self._texts(cells)
            elif is_text(cells.type):
                cells = self._numbers(column, cells, first)
            return functools.reduce(
                pc.or_kleene, [compare(cells, value) for value in condition.values]
            )
        except pa.ArrowException as error:
            kind = "text" if as_text else "numbers"
            raise self._table.problem(column)(
                f"holds {cells.type}, which data.where cannot compare with {kind}"
            ) from error

    def _texts(self, cells: pa.Array) -> pa.Array:
        """Return cells as text; where types are not told, without blanks around and empty ones null."""
        texts = cells.cast(pa.large_string())
        return texts if self.typed else _stripped(texts)

    def _numbers(self, column: str, cells: pa.Array, first: int) -> pa.Array:
        texts = _stripped(cells.cast(pa.large_string()))
        try:
            return texts.cast(pa.float64())
        except pa.ArrowInvalid:
            row = first_failing(texts, pa.float64())
            raise self._table.problem(column)(
                f"holds {shown(texts[row].as_py())}, which data.where compares with a number",
                first + row,
            ) from None


def _stripped(texts: pa.Array) -> pa.Array:
    """Return texts without blanks around them, empty ones as null."""
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)


def _left_out(n: int, rows: int, why: str) -> str:
    return f"left out: {n:,} of {rows:,} rows {why}" if n else ""


def within(times: Times, since: Bound | None, until: Bound | None) -> NDArray[np.bool_]:
    """Return whether times (N,) lie between two bounds, both included, a day as a whole.

    Raises:
        DataError: a bound is a number, but the times are dates; or it is a date, and the times are
            numbers that do not look like those since 1970.
    """
    inside = np.ones(len(times.values), dtype=bool)
    for name, bound in (("since", since), ("until", until)):
        if bound is None:
            continue
        compare: Any = operator.ge if name == "since" else operator.le
        value = bound.number
        if value is not None and times.nanoseconds:
            raise DataError(f"data.{name} is {value}, but the times are {times.form}; give a date")
        if value is None:
            unit = times.nanoseconds or nanoseconds_of_numbers(times)
            if not unit:
                raise DataError(
                    f"data.{name} is a date, but the times are {times.form} that are no seconds since "
                    "1970, nor thousandths or less of them; give a number"
                )
            if name == "until" and bound.length:
                compare = operator.lt
            end = bound.moment + (bound.length if name == "until" else 0)
            # Rounded up where what lies before is compared, down where what lies after is.
            whole = end // unit if compare is operator.le else -(-end // unit)
            value = end / unit if times.values.dtype.kind == "f" else whole
        inside &= compare(times.values, value)
    return inside


def keep_within(
    interactions: Interactions, times: Times | None, since: Bound | None, until: Bound | None
) -> Interactions:
    """Return the interactions whose times (N,) lie between two bounds.

    Raises:
        DataError: none is left; or as :func:`within`.
        ConfigError: there are no times.
    """
    if times is None:
        raise ConfigError(
            "data.since and data.until need times, and rows are taken in the order of the file; "
            "--data.time_column names the column"
        )
    return _kept(interactions, within(times, since, until), "lie outside data.since and data.until")


def drop_repeats(interactions: Interactions, repeats: str) -> Interactions:
    """Return the interactions without what users did again.

    Args:
        interactions: in any order.
        repeats: ``consecutive`` leaves out an item that is the one before it, too; ``first`` and
            ``last`` keep of a user's interactions with an item the first or the last.
    """
    order = user_order(interactions)
    if order is None:
        order = np.arange(len(interactions.users))
    users, items = interactions.users[order], interactions.items[order]
    if repeats == "consecutive":
        chosen = np.ones(len(order), dtype=bool)
        chosen[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
        rows = order[chosen]
    else:
        pairs = users.astype(np.int64) * len(interactions.item_ids) + items
        if repeats == "last":
            pairs, order = pairs[::-1], order[::-1]
        rows = order[np.unique(pairs, return_index=True)[1]]
    kept = np.zeros(len(order), dtype=bool)
    kept[rows] = True
    return _kept(interactions, kept, f"are repeats (data.repeats {repeats})")


def _kept(interactions: Interactions, kept: NDArray[np.bool_], why: str) -> Interactions:
    """Return the rows where ``kept`` holds, with a note of how many others there were."""
    if kept.all():
        return interactions
    if not kept.any():
        raise DataError(f"{interactions.name}: all {len(kept):,} rows {why}")
    note = _left_out(int((~kept).sum()), len(kept), why)
    selected = interactions.select(kept)
    return selected.with_note(note)
