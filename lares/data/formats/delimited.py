"""Delimited text as tables: every cell is text, and nothing is guessed from what it looks like.

DuckDB parses it, on all cores and in the file's order. Where it does not, the csv module goes over the
file again: it counts lines as an editor does, so it finds where a file is bad, and it reads what DuckDB
is stricter about than the rules are (ends of lines of several kinds, cells beyond all bounds).
"""

from __future__ import annotations

import contextlib
import csv
import glob
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from lares.data.file_names import compression
from lares.data.formats.csv_rows import rows_of
from lares.data.formats.text_lines import text_lines
from lares.data.tables import ReadAgain, Table, part_files, require_once
from lares.errors import DataError
from lares.names import utf8_name

_GUESSES = ("::", ",", ";", "\t", "|")
_NAMES = {"tab": "\t", "\\t": "\t"}
_ONE_CHARACTER = (
    "\x1f"  # stands for a longer delimiter where the csv module reads, which knows none
)
_LONGEST_LINE = 16 * 2**20  # bytes of a row that DuckDB makes room for
_ROWS_AT_ONCE = 100_000  # that the csv module reads
# What stands for no value: nothing in any file. DuckDB passes over such cells beyond the header's.
_NO_CELL = secrets.token_hex(16)


class Dialect(NamedTuple):
    """Form in which a file is written.

    Attributes:
        delimiter: between cells, one or more characters.
        quoted: whether cells may stand in double quotes.
        blank_start: whether blank lines stand before the first row; versions of DuckDB differ there.
    """

    delimiter: str
    quoted: bool = True
    blank_start: bool = False


class DelimitedTable(Table):
    """A file of delimited text, plain or compressed (.gz, .zst), or a folder of such parts.

    Args:
        path: file or folder.
        parts: the files, if they are not those that ``path`` says.
        delimiter: between cells, ``tab`` for a tab; ``auto`` finds the one with which the header has
            the columns wanted, else the one with which it has most columns.
        wanted: columns that the header should have.
        quoted: whether cells may stand in double quotes.
        header: names of the columns of a file without a header line.

    Raises:
        DataError: a file cannot be read, or a part has other columns than the first.
    """

    typed = False

    def __init__(
        self,
        path: Path,
        *,
        parts: Sequence[Path] | None = None,
        delimiter: str = "auto",
        wanted: Sequence[str] = (),
        quoted: bool = True,
        header: Sequence[str] | None = None,
    ) -> None:
        self.path = path
        self._parts = list(parts or part_files(path))
        self._rows: list[int] = []  # of each part, once they are read
        self._refused: set[int] = set()  # parts that DuckDB does not read
        self._has_header = header is None
        self._names: list[list[str]] = []  # of the columns of each part
        self._dialects: list[Dialect] = []
        delimiter = _NAMES.get(delimiter, delimiter)
        if not delimiter or set(delimiter) & set('"\r\n'):
            raise DataError(
                f"delimiter is {delimiter!r}; it must stand between cells, such as ; or tab"
            )
        for part in self._parts:
            if header is None:
                dialect, names = _find_dialect(part, delimiter, quoted, wanted)
            else:
                dialect, names = Dialect(delimiter, quoted), list(header)
            require_once(part, names)
            if self._names and set(names) != set(self._names[0]):
                raise DataError(f"{part} has other columns than {self._parts[0].name}")
            self._names.append(names)
            self._dialects.append(dialect)
        self.rename(self._names[0])
        shown = "tab" if self._dialects[0].delimiter == "\t" else repr(self._dialects[0].delimiter)
        files = "" if len(self._parts) == 1 else f", {len(self._parts)} files"
        self.form = f"CSV, delimiter {shown}{files}"

    def rename(self, names: list[str]) -> None:
        """Call the columns of a table of one file otherwise."""
        self.names = self._names[0] = names

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
        cells = [row for _, row in islice(self._records(0), rows)]
        return pa.Table.from_batches([self._batch(0, names, cells)])

    def place(self, row: int) -> str:
        for part, rows in enumerate(self._rows):
            if row < rows:
                line, _ = next(islice(self._records(part), row, None))
                return f"{self._parts[part]}, line {line}"
            row -= rows
        return str(self.path)

    def _batches_of(
        self, part: int, columns: Sequence[str], connection: Any
    ) -> Iterator[pa.RecordBatch]:
        path = self._parts[part]
        name = utf8_name(path.absolute())
        if name is None or part in self._refused or self._dialects[part].blank_start:
            yield from self._batches_by_csv_module(part, columns)
            return
        names, dialect = self._names[part], self._dialects[part]
        # Columns go by number: DuckDB takes names for the same that differ in case alone.
        kinds = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(names)))
        chosen = ", ".join(f"c{names.index(name)}" for name in columns)
        quote = '"' if dialect.quoted else ""
        # Not as parameters: then the whole result would be made before its first row comes.
        query = (
            f"SELECT {chosen} FROM read_csv({_literal(glob.escape(name))}, "
            "auto_detect = false, hive_partitioning = false, "
            f"columns = {{{kinds}}}, header = {self._has_header}, "
            f"delim = {_literal(dialect.delimiter)}, quote = '{quote}', escape = '{quote}', "
            f"nullstr = '{_NO_CELL}', allow_quoted_nulls = false, "
            f"strict_mode = true, max_line_size = {_LONGEST_LINE}, "
            f"buffer_size = {2 * _LONGEST_LINE}, compression = '{compression(path) or 'none'}')"
        )
        try:
            for batch in pa.RecordBatchReader.from_stream(connection.sql(query)):
                yield batch.rename_columns(list(columns))
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # the last by way of Arrow
            # Its rows are right only when all have come: threads read ahead and are compared at last.
            self._refused.add(part)
            raise ReadAgain from error

    def _records(self, part: int) -> Iterator[tuple[int, list[str]]]:
        """Give the rows of a part and the lines that they begin in; ``DataError`` if one is bad."""
        path, width = self._parts[part], len(self._names[part])
        rows = _records(path, self._dialects[part])
        if self._has_header:
            next(rows, None)
        for line, cells in rows:
            if len(cells) != width:
                cells_there = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
                expected = (
                    f"the header has {width}" if self._has_header else f"there are {width} columns"
                )
                raise DataError(f"{path}, line {line}: the row has {cells_there}; {expected}")
            yield line, cells

    def _batches_by_csv_module(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Give what DuckDB has not read, or say where the file is bad."""
        records = self._records(part)
        while cells := [row for _, row in islice(records, _ROWS_AT_ONCE)]:
            yield self._batch(part, columns, cells)

    def _batch(self, part: int, columns: Sequence[str], rows: list[list[str]]) -> pa.RecordBatch:
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


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _find_dialect(
    path: Path, delimiter: str, quoted: bool, wanted: Sequence[str]
) -> tuple[Dialect, list[str]]:
    """Return how a file is written and the names in its header."""
    readings: list[tuple[Dialect, list[str]]] = []
    guesses = _GUESSES if delimiter == "auto" else (delimiter,)
    for guess in guesses:
        dialect = Dialect(guess, quoted)
        try:
            line, cells = next(_records(path, dialect), (1, []))
        except DataError:
            if guess == guesses[-1] and not readings:
                raise
            continue  # with this delimiter the header's quotes make no sense
        names = [cell.strip() for cell in cells]
        readings.append((dialect._replace(blank_start=line > 1), names))
        if wanted and set(wanted) <= set(names):
            return readings[-1]
    return max(readings, key=lambda one: len(one[1]))


def _records(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Give the rows of a file, header included, each with the line it begins in; blank lines are none.

    Raises:
        DataError: the file cannot be read, is no UTF-8 text, or its quotes are not those of CSV.
    """
    lines, delimiter = text_lines(path), dialect.delimiter
    if len(delimiter) > 1:
        delimiter = _ONE_CHARACTER
        lines = (line.replace(dialect.delimiter, delimiter) for line in lines)
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        skipinitialspace=dialect.quoted and not delimiter.isspace(),
        strict=True,
    )
    line = 1
    try:
        for cells in rows_of(reader):
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if "unexpected end of data" in reason:
            reason = "a cell starts with a double quote, and none ends it"
        elif "expected after" in reason:
            reason = "after the double quote that ends a cell stands more than the delimiter"
        raise DataError(f"{path}, line {line}: {reason}") from error
