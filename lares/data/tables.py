"""Tables in files, CSV or Parquet, one file or a folder of parts: what every reader of them can do."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from lares.data.file_names import files_in, suffix
from lares.data.ids import Problem
from lares.errors import DataError


class ReadAgain(Exception):
    """Tell a reader to forget what a table has given; the next reading of it goes another way."""


class Table(ABC):
    """A table of one or several files.

    Attributes:
        path: file or folder, for messages.
        names: of its columns.
        form: of the files, in words.
        typed: whether columns have types of their own; else every cell is text.
    """

    path: Path
    names: list[str]
    form: str
    typed: bool

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Give the columns asked for, rows in the files' order.

        Raises:
            DataError: a column is missing or a file cannot be read; the message says where.
            ReadAgain: forget what was given and call once more.
        """

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return the columns asked for as :meth:`batches` gives them, at once.

        Raises:
            DataError: a column is missing or a file cannot be read; the message says where.
        """
        self.require(columns)
        while True:
            try:
                return joined(list(columns), list(self.batches(columns)), self.path)
            except ReadAgain:
                continue

    @abstractmethod
    def head(self, rows: int) -> pa.Table:
        """Return the first rows, all columns."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Return file and line (or row) of a row that was read, counted from 0, for messages."""

    def require(self, columns: Sequence[str]) -> None:
        """Raise ``DataError`` unless the table has the columns."""
        missing = [name for name in columns if name not in self.names]
        if missing:
            by_number = any(name.isdecimal() for name in (*missing, *self.names))
            raise DataError(
                f"{self.path} has no column {', '.join(map(repr, missing))}; its columns are "
                f"{', '.join(map(repr, self.names))}; --data.user_column, --data.item_column and "
                "--data.time_column say which are which"
                + "; text without a header line has numbers for names: --data.header false, "
                "--data.user_column 0 and so on" * by_number
            )

    def problem(self, column: str) -> Problem:
        """Return what makes the error for a message about a column, and a row of it if one is given."""

        def made(message: str, row: int | None = None) -> DataError:
            place = self.path if row is None else self.place(row)
            return DataError(f"{place}: column {column!r} {message}")

        return made


def joined(names: list[str], batches: Sequence[pa.RecordBatch], path: Path) -> pa.Table:
    """Return batches as one table; ``DataError`` if their types do not go together."""
    if not batches:
        return pa.table({name: pa.array([], pa.null()) for name in names})
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the files of {path} have columns of different types: {error}") from error


def arrow_file(path: Path) -> pa.NativeFile:
    """Return a file opened for Arrow, which by itself takes names in UTF-8 alone."""
    return pa.OSFile(os.fsencode(path))


def require_file(path: Path) -> None:
    """Raise ``DataError`` unless ``path`` is a file with something in it."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")


def require_once(path: Path, names: Sequence[str]) -> None:
    """Raise ``DataError`` if two columns have the same name."""
    twice = [name for place, name in enumerate(names) if name and name in names[:place]]
    if twice:
        raise DataError(f"{path} has two columns called {twice[0]!r}; rename one of them")


def part_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a table: ``path`` itself, or those in it if it is a folder.

    Parts come in the order of their names, in which numbers count as such. Hidden files and those that
    writers of parts leave beside them (``_SUCCESS``) are passed over.

    Args:
        path: file or folder.
        suffixes: of the files in a folder.

    Raises:
        DataError: the folder holds no such files.
    """
    if not path.is_dir():
        return [path]
    parts = [file for file in files_in(path) if suffix(file) in suffixes]
    if not parts:
        raise DataError(f"folder {path} holds no files ending in {' or '.join(suffixes)}")
    return sorted(parts, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [
        (int(piece), "") if piece.isdecimal() else (-1, piece)
        for piece in re.split(r"([0-9]+)", path.name)
    ]
