"""Files of rows for other programs: CSV, JSON lines, Parquet, by batches, whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lares.errors import ConfigError
from lares.files import atomic_write, not_written, require_writable
from lares.names import shown

if TYPE_CHECKING:
    import pyarrow as pa

FORMS = (".parquet", ".csv", ".jsonl")
_AT_ONCE = 1 << 18  # rows of a group of Parquet's, and of text that is held


def require_form(option: str, path: Path) -> None:
    """Raise ``ConfigError`` unless ``option``'s file is named after a form."""
    if path.suffix.lower() not in FORMS:
        raise ConfigError(
            f"{option} is {shown(str(path))}; it must end in one of {', '.join(FORMS)}"
        )


def require_table_file(option: str, path: Path) -> None:
    """Raise ``ConfigError`` as :func:`require_form`, or if it can be told that the file cannot be
    written."""
    require_form(option, path)
    try:
        require_writable(path)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error}") from error


@contextlib.contextmanager
def table_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that adds the rows of a table to a file, which is there when the block succeeds.

    Args:
        path: its suffix says the form.
        schema: of every table.

    Raises:
        CheckpointError: the file could not be written; what was there before is untouched.
    """
    opened = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[path.suffix.lower()]
    try:
        with atomic_write(path) as temporary, opened(temporary, schema) as add:
            yield add
    except OSError as error:
        raise not_written(path, error) from error


@contextlib.contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    import pyarrow.csv

    with path.open("wb") as file:
        file.write((",".join(schema.names) + "\n").encode())
        options = pyarrow.csv.WriteOptions(include_header=False)
        with pyarrow.csv.CSVWriter(file, schema, write_options=options) as writer:
            yield writer.write_table


@contextlib.contextmanager
def _json_lines(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    import duckdb  # other forms do without

    with duckdb.connect() as connection, path.open("wb") as file:

        def add(table: pa.Table) -> None:
            connection.register("added", table)  # whose rows keep their order
            connection.execute("SELECT to_json(added)::VARCHAR FROM added")
            while rows := connection.fetchmany(_AT_ONCE):
                file.write("".join(f"{line}\n" for (line,) in rows).encode())

        yield add


@contextlib.contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    import pyarrow.parquet as pq

    with path.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        yield lambda table: writer.write_table(table, _AT_ONCE)
