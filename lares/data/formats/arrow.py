"""Tables in memory: data frames of pandas and polars, Arrow tables, and columns by name.

Neither pandas nor polars is imported: who has a table of theirs has done so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lares.data.tables import Table, require_once
from lares.errors import DataError
from lares.names import shown

_ROWS_AT_ONCE = 1_000_000


def is_in_memory(data: object) -> bool:
    """Return whether ``data`` are no name of a file or folder."""
    return not isinstance(data, str | os.PathLike)


def library_of(data: object) -> str:
    """Return the library that a table in memory is of: ``pandas``, ``polars``, or else ``arrow``."""
    libraries = [kind.__module__.partition(".")[0] for kind in type(data).__mro__]
    return next((name for name in libraries if name in ("pandas", "polars")), "arrow")


class ArrowTable(Table):
    """A table in memory, whose columns become Arrow's when they are asked for.

    Args:
        data: DataFrame of pandas or polars, Arrow table or record batch, anything else that Arrow can
            read as a table (``__arrow_c_stream__``), or a mapping from names to columns: lists or
            arrays.

    Raises:
        DataError: it is something else, or columns have the same name or are not of the same length.
    """

    typed = True

    def __init__(self, data: Any) -> None:
        name, self.form, pairs = _columns_of(data)
        self.path = Path(name)
        self.names = [column for column, _ in pairs]
        require_once(self.path, self.names)
        self._columns = dict(pairs)
        for column, values in pairs:
            if (
                not hasattr(values, "__len__")
                or isinstance(values, str)
                or _dimensions(values) != 1
            ):
                raise self.problem(column)(f"is {_line(values)}; it must be a list or an array")
        sizes = {column: len(values) for column, values in pairs}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{column!r} {size:,}" for column, size in sizes.items())
            raise DataError(
                f"the columns of {name} must be of the same length; they have rows: {said}"
            )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.require(columns)
        table = pa.table({name: self._column(name) for name in columns})
        yield from table.to_batches(_ROWS_AT_ONCE)

    def head(self, rows: int) -> pa.Table:
        first = {}
        for name in self.names:
            try:
                first[name] = self._column(name, rows)
            except DataError:  # what no column of Arrow's can hold is neither ids nor times
                continue
        return pa.table(first)

    def place(self, row: int) -> str:
        return f"{self.path}, row {row} (counted from 0)"

    def require(self, columns: Sequence[str]) -> None:
        missing = [name for name in columns if name not in self.names]
        if missing:
            raise DataError(
                f"{self.path} has no column {', '.join(map(repr, missing))}; its columns are "
                f"{', '.join(map(repr, self.names))}; user_column, item_column and time_column say "
                "which are which"
            )

    def _column(self, name: str, rows: int | None = None) -> pa.ChunkedArray:
        """Return a column, or its first rows, as Arrow has it."""
        column = self._columns[name]
        if rows is not None:
            column = (column.iloc if hasattr(column, "iloc") else column)[:rows]
        try:
            made = _as_arrow(column)
            made.validate(full=True)  # a column may call any bytes text
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            value, row = _first_of_another_kind(column)
            said = f"holds {shown(value)}, {_kind(value)}, and something else before it"
            if row is None:
                said = f"cannot be read: {' '.join(str(error).split())}"
            raise self.problem(name)(said, row) from error
        return made


def _columns_of(data: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    """Return what a table is called in messages, its form in words, and its columns by name."""
    library, kinds = library_of(data), {kind.__name__ for kind in type(data).__mro__}
    if library == "pandas" and "DataFrame" in kinds:
        named = [(str(name), data.iloc[:, place]) for place, name in enumerate(data.columns)]
        return "the DataFrame", "pandas DataFrame", named
    if library == "polars" and "LazyFrame" in kinds:
        raise DataError("the polars LazyFrame has no rows yet; give its collect()")
    if library == "polars" and "DataFrame" in kinds:
        return "the DataFrame", "polars DataFrame", _named(data.to_arrow())
    if isinstance(data, pa.RecordBatch):
        return "the Arrow table", "Arrow table", _named(pa.Table.from_batches([data]))
    if hasattr(data, "__arrow_c_stream__") and library == "arrow":
        return "the Arrow table", "Arrow table", _named(pa.table(data))
    if isinstance(data, Mapping):
        return "the dict", "columns by name", [(str(name), data[name]) for name in data]
    raise DataError(
        f"the data are {_line(data)}; they must be a DataFrame of pandas or polars, an Arrow table, "
        "the path of a file or folder, or a dict of columns"
    )


def _named(table: pa.Table) -> list[tuple[str, Any]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _dimensions(values: Any) -> int:
    return len(getattr(values, "shape", (len(values),)))


def _line(value: object) -> str:
    """Return a value on one line, as an error message has it."""
    return " ".join(shown(value).split())


def _as_arrow(column: Any) -> pa.ChunkedArray:
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        if hasattr(column, "to_arrow"):  # of polars
            column = column.to_arrow()
        elif hasattr(column, "__array__") and library_of(column) == "arrow":
            column = pa.array(np.asarray(column), from_pandas=True)
        else:
            column = pa.array(column, from_pandas=True)
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _first_of_another_kind(column: Any) -> tuple[Any, int | None]:
    """Return the first value that is of another kind than the first, and its row; None if there is
    none."""
    kind = None
    for row, value in enumerate(column):
        if _is_missing(value):
            continue
        kind = kind or _kind(value)
        if _kind(value) != kind:
            return value, row
    return None, None


def _is_missing(value: Any) -> bool:
    """Return whether a value stands for none: None, NaN, or what pandas has for them."""
    try:
        return bool(pa.array([value], from_pandas=True).null_count)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False


def _kind(value: Any) -> str:
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return "a number"
    return "text" if isinstance(value, str) else f"a {type(value).__name__}"
