"""Names of the forms of data that ``load_dataset`` reads, and what files' names say about theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from lares.errors import DataError

Format = Literal["auto", "parquet", "csv", "recbole", "amazon23", "movielens"]
FORMATS: tuple[str, ...] = get_args(Format)

_KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".inter": "recbole",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SPLITS = ("train", "valid", "test")


def require_there(path: Path) -> None:
    """Raise ``DataError`` unless there is a file or folder of that name."""
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")


def compression(path: Path) -> str | None:
    """Return the compression that a file's name tells, as Arrow and DuckDB call it."""
    return COMPRESSIONS.get(path.suffix.lower())


def last_name(path: Path) -> str:
    """Return a path's last name; of ``.`` and ``..`` that of the folder that they stand for."""
    return path.resolve().name if path.name in ("", "..") else path.name


def stem(path: Path) -> str:
    """Return a file's name without the suffix of its form and that of its compression."""
    return Path(_plain_name(path)).stem


def suffix(path: Path) -> str:
    """Return the suffix of a file's form in lower case, whatever compression's comes after it."""
    return Path(_plain_name(path)).suffix.lower()


def kind(path: Path) -> str | None:
    """Return the format that a file's name tells: parquet, csv or recbole."""
    return _KINDS.get(suffix(path))


def _plain_name(path: Path) -> str:
    return path.stem if compression(path) else path.name
