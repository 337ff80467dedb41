"""Files of rows for other programs: CSV, JSON lines, Parquet, by batches, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lares.errors import ConfigError
from lares.files import atomic_write, not_written, require_writable

if TYPE_CHECKING:
    import pyarrow as pa

FORMS = (".csv", ".jsonl", ".parquet")


def require_table_file(option: str, path: Path) -> None:
    """Raise ``ConfigError`` unless ``option``'s file is named after a form, or if it can be told
    beforehand that it cannot be written."""
    if path.suffix.lower() not in FORMS:
        raise ConfigError(f"{option} is {path}; its name must end in one of {', '.join(FORMS)}")
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
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(schema.names)
        yield lambda table: writer.writerows(zip(*table.to_pydict().values(), strict=True))


@contextlib.contextmanager
def _json_lines(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda table: file.writelines(
            json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()
        )


@contextlib.contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    import pyarrow.parquet as pq

    with path.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        yield writer.write_table
