"""Parquet files as tables, by way of Arrow, whose types they keep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from lares.data.tables import Table, part_files, require_once
from lares.errors import DataError

_ROWS_AT_ONCE = 1_000_000


class ParquetTable(Table):
    """A Parquet file, or a folder of them with the same columns.

    Args:
        path: file or folder.

    Raises:
        DataError: a file cannot be read, or a part has other columns than the first.
    """

    typed = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts = part_files(path)
        self._rows: list[int] = []
        names: list[str] = []
        for part in self._parts:
            with _opened(part) as file:
                found = list(file.schema_arrow.names)
                self._rows.append(file.metadata.num_rows)
            require_once(part, found)
            if names and set(found) != set(names):
                raise DataError(f"{part} has other columns than {self._parts[0].name}")
            names = names or found
        self.names = names
        self.form = "Parquet" if len(self._parts) == 1 else f"Parquet, {len(self._parts)} files"

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.require(columns)
        for part in self._parts:
            with _opened(part) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                    yield batch.select(list(columns))

    def head(self, rows: int) -> pa.Table:
        with _opened(self._parts[0]) as file:
            for batch in file.iter_batches(rows):
                return pa.Table.from_batches([batch])
            return file.schema_arrow.empty_table()

    def place(self, row: int) -> str:
        for part, rows in zip(self._parts, self._rows, strict=True):
            if row < rows:
                return f"{part}, row {row + 1}"
            row -= rows
        return str(self.path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give a Parquet file; whatever goes wrong with it in the block is a ``DataError``."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
