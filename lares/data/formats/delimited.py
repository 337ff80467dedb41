"""Delimited text as tables, one row a line, or several lines where cells in quotes hold ends of lines.

Where DuckDB does not read a file, the csv module does: ends of lines of several kinds, cells beyond all
bounds.
"""

from __future__ import annotations

import csv
import glob
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lares.data.file_names import compression
from lares.data.formats.csv_rows import rows_of
from lares.data.formats.text_lines import text_lines
from lares.data.formats.text_table import TextTable, literal
from lares.data.tables import require_file, require_once
from lares.errors import DataError
from lares.names import utf8_name

_GUESSES = ("::", ",", ";", "\t", "|")
_NAMES = {"tab": "\t", "\\t": "\t"}
_ONE_CHARACTER = (
    "\x1f"  # stands for a longer delimiter where the csv module reads, which knows none
)
_LONGEST_LINE = 16 * 2**20  # bytes of a row that DuckDB makes room for
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


class DelimitedTable(TextTable):
    """A file of delimited text, plain or compressed (.gz, .zst), or several with the same columns.

    Args:
        path: file or folder, for messages.
        parts: the files; None is ``path``.
        delimiter: between cells, ``tab`` for a tab; ``auto`` finds the one with which the header has
            the columns wanted, else the one with which it has most columns.
        wanted: columns that the header should have.
        quoted: whether cells may stand in double quotes.
        header: names of the columns of a file without a header line.
        numbered: whether there is no header line, and columns are called by their numbers from 0.

    Raises:
        DataError: a file cannot be read, or a part has other columns than the first.
    """

    def __init__(
        self,
        path: Path,
        *,
        parts: Sequence[Path] | None = None,
        delimiter: str = "auto",
        wanted: Sequence[str] = (),
        quoted: bool = True,
        header: Sequence[str] | None = None,
        numbered: bool = False,
    ) -> None:
        super().__init__(path, [path] if parts is None else parts)
        self._has_header = header is None and not numbered
        self._dialects: list[Dialect] = []
        delimiter = _NAMES.get(delimiter, delimiter)
        if not delimiter or set(delimiter) & set('"\r\n'):
            raise DataError(
                f"delimiter is {delimiter!r}; it must stand between cells, such as ; or tab"
            )
        for part in self._parts:
            require_file(part)
            if header is None:
                dialect, names = _find_dialect(part, delimiter, quoted, () if numbered else wanted)
                names = [str(place) for place in range(len(names))] if numbered else names
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

    def query(self, part: int, columns: Sequence[str]) -> str | None:
        path = self._parts[part]
        name = utf8_name(path.absolute())
        if name is None or self._dialects[part].blank_start:
            return None
        names, dialect = self._names[part], self._dialects[part]
        # Columns go by number: DuckDB takes names for the same that differ in case alone.
        kinds = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(names)))
        chosen = ", ".join(f"c{names.index(name)}" for name in columns)
        quote = '"' if dialect.quoted else ""
        # Not as parameters: then the whole result would be made before its first row comes.
        return (
            f"SELECT {chosen} FROM read_csv({literal(glob.escape(name))}, "
            "auto_detect = false, hive_partitioning = false, "
            f"columns = {{{kinds}}}, header = {self._has_header}, "
            f"delim = {literal(dialect.delimiter)}, quote = '{quote}', escape = '{quote}', "
            f"nullstr = '{_NO_CELL}', allow_quoted_nulls = false, "
            f"strict_mode = true, max_line_size = {_LONGEST_LINE}, "
            f"buffer_size = {2 * _LONGEST_LINE}, compression = '{compression(path) or 'none'}')"
        )

    def records(self, part: int) -> Iterator[tuple[int, list[str]]]:
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
