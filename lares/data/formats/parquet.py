"""Parquet files as tables, by way of Arrow, whose types they keep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from lares.data.tables import Table, arrow_file, require_file, require_once
from lares.errors import DataError

_ROWS_AT_ONCE = 1_000_000


class ParquetTable(Table):
    """A Parquet file, or several with the same columns.

    Args:
        path: file or folder, for messages.
        parts: the files; None is ``path``.

    Raises:
        DataError: a file cannot be read, or a part has other columns than the first.
    """

    typed = True

    def __init__(self, path: Path, parts: Sequence[Path] | None = None) -> None:
        self.path = path
        self._parts = [path] if parts is None else list(parts)
        self._rows: list[int] = []
        names: list[str] = []
        for part in self._parts:
            require_file(part)
            with _opened(part) as file:
                of_part = list(file.schema_arrow.names)
                self._rows.append(file.metadata.num_rows)
            require_once(part, of_part)
            if names and set(of_part) != set(names):
                raise DataError(f"{part} has other columns than {self._parts[0].name}")
            names = names or of_part
        self.names = names
        self.form = "Parquet" if len(self._parts) == 1 else f"Parquet, {len(self._parts)} files"

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.require(columns)
        first = 0
        for part in self._parts:
            with _opened(part) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                    for name in columns:
                        if not _is_whole(batch.column(name)):
                            row = first + _first_that_is_not_text(batch.column(name))
                            raise self.problem(name)(
                                "is not UTF-8, as text is in Parquet files", row
                            )
                    yield batch.select(list(columns))
                    first += batch.num_rows

    def head(self, rows: int) -> pa.Table:
        with _opened(self._parts[0]) as file:
            for batch in file.iter_batches(rows):
                whole = [name for name in batch.schema.names if _is_whole(batch.column(name))]
                return pa.Table.from_batches([batch.select(whole)])
            return file.schema_arrow.empty_table()

    def place(self, row: int) -> str:
        for part, rows in zip(self._parts, self._rows, strict=True):
            if row < rows:
                return f"{part}, row {row + 1}"
            row -= rows
        return str(self.path)


def _is_whole(column: pa.Array) -> bool:
    """Return whether a column holds what its type says: a file may call any bytes text."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _first_that_is_not_text(column: pa.Array) -> int:
    """Return the first row that holds other bytes than UTF-8, of a column that says it is text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for row in range(len(column)):
        if not _is_whole(column.slice(row, 1)):
            return row
    return 0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give a Parquet file; whatever goes wrong with it in the block is a ``DataError``."""
    try:
        with arrow_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a readable Parquet file: {reason}") from error
