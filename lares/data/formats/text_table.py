"""Text files as tables: every cell is text, and nothing is guessed from what it looks like.

DuckDB parses them, on all cores and in the file's order. Where it does not, Python goes over the file
again: it counts lines as an editor does, so it finds where a file is bad, and it reads what DuckDB is
stricter about than the rules are.
"""

from __future__ import annotations

import contextlib
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lares.data.tables import ReadAgain, Table
from lares.names import utf8_name

_ROWS_AT_ONCE = 100_000  # that Python reads

Cells = Sequence[str | None]


class TextTable(Table):
    """A file of text, plain or compressed (.gz, .zst), or several such parts.

    A form of text says how DuckDB reads it and how Python does (:meth:`query`, :meth:`records`).

    Args:
        path: file or folder, for messages.
        parts: the files.
    """

    typed = False

    def __init__(self, path: Path, parts: Sequence[Path]) -> None:
        self.path = path
        self._parts = list(parts)
        self._names: list[list[str]] = []  # of the columns of each part
        self._rows: list[int] = []  # of each part, once they are read
        self._refused: set[int] = set()  # parts that DuckDB does not read

    @abstractmethod
    def query(self, part: int, columns: Sequence[str]) -> str | None:
        """Return DuckDB's query for columns of a part; None where it cannot read them."""

    @abstractmethod
    def records(self, part: int) -> Iterator[tuple[int, Cells]]:
        """Give the rows of a part, all columns, and the lines that they begin in.

        Raises:
            DataError: a row is bad; the message gives its line.
        """

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.require(columns)
        self._rows = []
        with _connection() as connection:
            for part in range(len(self._parts)):
                rows = 0
                for batch in self._batches_of(part, columns, connection):
                    rows += batch.num_rows
                    yield batch
                self._rows.append(rows)

    def head(self, rows: int) -> pa.Table:
        names = [name for name in self.names if name]
        cells = [row for _, row in islice(self.records(0), rows)]
        return pa.Table.from_batches([self._batch(0, names, cells)])

    def place(self, row: int) -> str:
        for part in range(len(self._parts)):
            # Of the part that is being read it is not known yet how many rows there are.
            if part == len(self._rows) or row < self._rows[part]:
                line, _ = next(islice(self.records(part), row, None), (0, []))
                return f"{self._parts[part]}, line {line}" if line else str(self.path)
            row -= self._rows[part]
        return str(self.path)

    def _batches_of(
        self, part: int, columns: Sequence[str], connection: Any
    ) -> Iterator[pa.RecordBatch]:
        query = None if part in self._refused else self.query(part, columns)
        if query is None:
            records = self.records(part)
            while cells := [row for _, row in islice(records, _ROWS_AT_ONCE)]:
                yield self._batch(part, columns, cells)
            return
        try:
            for batch in pa.RecordBatchReader.from_stream(connection.sql(query)):
                yield batch.rename_columns(list(columns))
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # the last by way of Arrow
            # Its rows are right only when all have come: threads read ahead and are compared at last.
            self._refused.add(part)
            raise ReadAgain from error

    def _batch(self, part: int, columns: Sequence[str], rows: list[Cells]) -> pa.RecordBatch:
        places = [self._names[part].index(name) for name in columns]
        arrays = [pa.array([row[place] for row in rows], pa.large_string()) for place in places]
        return pa.record_batch(arrays, list(columns))


@contextlib.contextmanager
def _connection() -> Iterator[Any]:
    """Give a DuckDB connection that keeps to this process and to the folder for temporary files."""
    settings: dict[str, Any] = {
        "temp_directory": utf8_name(tempfile.gettempdir()) or "",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "arrow_large_buffer_size": "true",  # text of a column may be more than 2 GB
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        yield connection


def literal(text: str) -> str:
    """Return text as DuckDB's queries have it."""
    return "'" + text.replace("'", "''") + "'"
