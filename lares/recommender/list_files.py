"""Files of lists: parts of users, joined to one file; a row for every item of every list."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lares.data.file_names import suffix
from lares.errors import ConfigError
from lares.names import shown

_ROW_GROUP = 1 << 18  # rows of a Parquet file that are read at once


class ListForm(NamedTuple):
    """Hold how lists are written.

    Attributes:
        write: a table into a new file, a part.
        join: parts into a new file, given their columns' names.
    """

    write: Callable[[pa.Table, Path], None]
    join: Callable[[Sequence[Path], Sequence[str], Path], None]


def list_form(path: Path) -> ListForm:
    """Return the form that a file's name ends in.

    Raises:
        ConfigError: there is no such form.
    """
    form = LIST_FORMS.get(suffix(path)) if path.suffix.lower() == suffix(path) else None
    if form is None:
        raise ConfigError(
            f"lists cannot be written to {shown(str(path))}; it must end in {', '.join(LIST_FORMS)}"
        )
    return form


def _write_parquet(table: pa.Table, path: Path) -> None:
    with open(path, "wb") as file:
        pq.write_table(table, file)


def _join_parquet(parts: Sequence[Path], names: Sequence[str], path: Path) -> None:
    held: list[pa.Table] = []
    with open(path, "wb") as file, pq.ParquetWriter(file, _read_parquet(parts[0]).schema) as writer:
        for part in parts:
            held.append(_read_parquet(part))
            if sum(map(len, held)) >= _ROW_GROUP:
                writer.write_table(pa.concat_tables(held), _ROW_GROUP)
                held = []
        if held:
            writer.write_table(pa.concat_tables(held), _ROW_GROUP)


def _read_parquet(path: Path) -> pa.Table:
    with open(path, "rb") as file:
        return pq.read_table(file)


def _write_csv(table: pa.Table, path: Path) -> None:
    options = pa.csv.WriteOptions(include_header=False)
    with open(path, "wb") as file:
        pa.csv.write_csv(table, file, options)


def _join_csv(parts: Sequence[Path], names: Sequence[str], path: Path) -> None:
    _join_text(parts, ",".join(names) + "\n", path)


def _write_json_lines(table: pa.Table, path: Path) -> None:
    import duckdb  # other forms do without

    with duckdb.connect() as connection, open(path, "wb") as file:
        connection.register("lists", table)  # whose rows keep their order
        connection.execute("SELECT to_json(lists)::VARCHAR FROM lists")
        while rows := connection.fetchmany(_ROW_GROUP):
            file.write("".join(f"{line}\n" for (line,) in rows).encode())


def _join_json_lines(parts: Sequence[Path], names: Sequence[str], path: Path) -> None:
    _join_text(parts, "", path)


def _join_text(parts: Sequence[Path], header: str, path: Path) -> None:
    with open(path, "wb") as file:
        file.write(header.encode())
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, file)


LIST_FORMS = {
    ".parquet": ListForm(_write_parquet, _join_parquet),
    ".csv": ListForm(_write_csv, _join_csv),
    ".jsonl": ListForm(_write_json_lines, _join_json_lines),
}
