"""Names of files, and what they say: a form's suffix, a compression, the part of a split."""

from __future__ import annotations

from pathlib import Path

from lares.errors import DataError

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


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder, without hidden ones and those that writers of parts leave there."""
    return [file for file in folder.iterdir() if file.name[0] not in "._" and file.is_file()]


def _plain_name(path: Path) -> str:
    return path.stem if compression(path) else path.name
