"""Delimited and Parquet files as Arrow tables, with errors that say where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from lares.errors import DataError


def require_file(path: Path) -> None:
    """Raise ``DataError`` unless ``path`` is a file with something in it."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")


def _require_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, present))}"
        )


def parquet_columns(path: Path) -> list[str]:
    """Names of a Parquet file's columns."""
    require_file(path)
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def read_parquet(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a Parquet file."""
    _require_columns(path, parquet_columns(path), columns)
    try:
        return pyarrow.parquet.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def delimited_columns(path: Path, delimiter: str) -> list[str]:
    """Names in the header line of a delimited file."""
    require_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline().rstrip("\r\n").split(delimiter)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line 1: not UTF-8 text ({error.reason})") from error


def read_delimited(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    types: dict[str, pa.DataType] | None = None,
    header: Sequence[str] | None = None,
) -> pa.Table:
    """Columns of a delimited text file.

    Args:
        path: the file, UTF-8.
        columns: names wanted.
        delimiter: one character.
        types: of columns whose type must not be guessed.
        header: names of all columns where the file has no header line.

    Raises:
        DataError: a column is missing, or a row is malformed; the message gives file and line.
    """
    present = list(header) if header else delimited_columns(path, delimiter)
    require_file(path)
    _require_columns(path, present, columns)
    try:
        # One thread: only then does the reader know the number of a bad row.
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=list(header) if header else None
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if delimiter == "," else False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(columns), column_types=types or {}
            ),
        )
    except (pa.ArrowException, OSError) as error:
        place = str(error).replace("Row #", "line ")
        raise DataError(f"{path}: malformed row: {place}") from error


def id_codes(table: pa.Table, column: str, path: Path) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """An id column as (codes (N,), distinct ids ascending): whole numbers or text.

    Raises:
        DataError: a cell is empty, or the ids are neither whole numbers nor text.
    """
    values = table.column(column)
    if len(values) == 0:
        raise DataError(f"{path} holds no interaction")
    _require_filled(values, column, path)
    if pa.types.is_integer(values.type):
        ids, codes = np.unique(values.to_numpy(), return_inverse=True)
        return codes.astype(np.int32), ids
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise DataError(
            f"{path}: column {column!r} holds {values.type}; ids must be whole numbers or text"
        )
    encoded = values.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    ids = np.array(encoded.dictionary.to_pylist())
    order = np.argsort(ids, kind="stable")
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return rank[encoded.indices.to_numpy()], ids[order]


def numbers(table: pa.Table, column: str, path: Path) -> NDArray[Any]:
    """A numeric column (N,); ``DataError`` if a cell is empty or not a number."""
    values = table.column(column)
    _require_filled(values, column, path)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{path}: column {column!r} holds {values.type}; it must be numbers")
    found: NDArray[Any] = values.to_numpy()
    if found.dtype.kind == "f" and np.isnan(found).any():
        line = int(np.isnan(found).argmax()) + 2
        raise DataError(f"{path}, line {line}: column {column!r} is NaN")
    return found


def _require_filled(values: pa.ChunkedArray, column: str, path: Path) -> None:
    empty = pc.is_null(values)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        empty = pc.or_(empty, pc.equal(pc.utf8_trim_whitespace(values), "").fill_null(True))
    if len(values) and pc.any(empty).as_py():
        row = pc.index(empty, True).as_py()
        raise DataError(f"{path}, row {row + 1} (line {row + 2}): column {column!r} is empty")
