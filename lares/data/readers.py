"""From files to samples: ``load_dataset`` for every form of data that this package reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from lares.data.dataset import (
    Dataset,
    Interactions,
    group_by_user,
    keep_core,
    leave_one_out,
)
from lares.data.formats import FORMATS
from lares.data.recbole import ATOMIC_SUFFIX, read_atomic_interactions, read_sequence_form
from lares.data.tables import (
    delimited_columns,
    id_codes,
    numbers,
    parquet_columns,
    read_delimited,
    read_parquet,
)
from lares.errors import DataError

_SPLIT_NAMES = ("train", "valid", "test")
_MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_DEFAULT_TIME = "timestamp"


def load_dataset(
    path: str | Path,
    *,
    format: str = "auto",
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str | None = None,
    core: int = 0,
    name: str | None = None,
) -> Dataset:
    """Read interactions and split them by leave-one-out.

    Args:
        path: a Parquet or CSV file; a RecBole ``.inter`` file or the folder of one (plain
            interactions, or sequence form with ``NAME.train.inter`` and its fellows, whose own split
            is kept); an Amazon Reviews 2023 5-core CSV, or one of its ``last_out`` parts; MovieLens
            ``u.data``.
        format: one of ``FORMATS``; ``auto`` goes by name and columns.
        user_column, item_column: of a Parquet or CSV file.
        time_column: to order a user's rows by; None takes ``timestamp`` if there, else the order of
            the rows. Ties keep the order of the rows.
        core: keep only users and items with at least this many interactions; 0 keeps all.
        name: of the data in tables; by default the file's.

    Raises:
        DataError: the data cannot be used; the message gives the file, and line or column.
    """
    path = Path(path)
    if format not in FORMATS:
        raise DataError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if core < 0:
        raise DataError(f"core is {core}; it must be zero or more")
    if format == "auto":
        format = _guess_format(path)
    if format == "recbole":
        stem = _atomic_stem(path)
        if Path(f"{stem}.train{ATOMIC_SUFFIX}").is_file():
            if core:
                raise DataError(
                    f"{path} is in sequence form, split already: core={core} cannot be applied"
                )
            return read_sequence_form(stem, name or stem.name)
        interactions = read_atomic_interactions(Path(f"{stem}{ATOMIC_SUFFIX}"), name or stem.name)
    elif format == "movielens":
        interactions = _read_movielens(path / "u.data" if path.is_dir() else path, name)
    else:
        if format == "amazon23":
            item_column, time_column = "parent_asin", time_column or _DEFAULT_TIME
        interactions = _read_table(path, user_column, item_column, time_column, name)
    if core:
        interactions = keep_core(interactions, core)
    return leave_one_out(group_by_user(interactions))


def _guess_format(path: Path) -> str:
    if path.is_dir():
        if (path / "u.data").is_file():
            return "movielens"
        if any(path.glob(f"*{ATOMIC_SUFFIX}")):
            return "recbole"
        raise DataError(f"folder {path} holds neither u.data nor a file ending in {ATOMIC_SUFFIX}")
    if path.suffix == ATOMIC_SUFFIX:
        return "recbole"
    if path.name == "u.data":
        return "movielens"
    if path.suffix in (".parquet", ".pq"):
        return "parquet"
    if path.suffix in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        return "amazon23" if "parent_asin" in delimited_columns(path, delimiter) else "csv"
    raise DataError(
        f"{path}: cannot tell the format of {path.suffix or 'a file without suffix'!r}; give format="
    )


def _atomic_stem(path: Path) -> Path:
    """``folder/NAME`` of atomic files, from the folder, from any of its files, or from itself."""
    if path.is_dir():
        files = sorted(path.glob(f"*{ATOMIC_SUFFIX}"))
        stems = {_atomic_stem(file) for file in files}
        if len(stems) != 1:
            raise DataError(
                f"folder {path} holds atomic files of several data sets "
                f"({', '.join(sorted(stem.name for stem in stems))}); name one file"
            )
        return stems.pop()
    stem = path.name.removesuffix(ATOMIC_SUFFIX)
    for split in _SPLIT_NAMES:
        stem = stem.removesuffix(f".{split}")
    return path.with_name(stem)


def _read_movielens(path: Path, name: str | None) -> Interactions:
    """MovieLens 100K's ``u.data``: tab separated, without a header."""
    whole = dict.fromkeys(_MOVIELENS_COLUMNS, pa.int64())
    table = read_delimited(
        path,
        ("user_id", "item_id", "timestamp"),
        delimiter="\t",
        types=whole,
        header=_MOVIELENS_COLUMNS,
    )
    return _interactions(table, "user_id", "item_id", "timestamp", path, name or "ml-100k")


def _read_table(
    path: Path, user: str, item: str, time: str | None, name: str | None
) -> Interactions:
    parts = _last_out_parts(path)
    stem = parts[0].name.split(".train.")[0] if len(parts) > 1 else path.stem
    if path.suffix in (".parquet", ".pq"):
        present = parquet_columns(path)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        present = delimited_columns(path, delimiter)
    if time is None and _DEFAULT_TIME in present:
        time = _DEFAULT_TIME
    columns = [user, item] + ([time] if time else [])
    if path.suffix in (".parquet", ".pq"):
        table = read_parquet(path, columns)
    else:
        types = {time: pa.float64()} if time else {}
        table = pa.concat_tables(
            read_delimited(part, columns, delimiter=delimiter, types=types) for part in parts
        )
    return _interactions(table, user, item, time, path, name or stem)


def _last_out_parts(path: Path) -> list[Path]:
    """All three files of Amazon's ``last_out`` form where ``path`` is one of them, else ``path``."""
    for split in _SPLIT_NAMES:
        if path.name.endswith(f".{split}.csv"):
            stem = path.name.removesuffix(f".{split}.csv")
            parts = [path.with_name(f"{stem}.{other}.csv") for other in _SPLIT_NAMES]
            missing = [part.name for part in parts if not part.is_file()]
            if missing:
                raise DataError(f"{path} is one of three parts; beside it {missing} is missing")
            return parts
    return [path]


def _interactions(
    table: pa.Table, user: str, item: str, time: str | None, path: Path, name: str
) -> Interactions:
    users, user_ids = id_codes(table, user, path)
    items, item_ids = id_codes(table, item, path)
    if item_ids.dtype.kind in "iu" and len(item_ids) and item_ids[0] < 0:
        line = int(np.argmin(item_ids[items])) + 2
        raise DataError(f"{path}, line {line}: item id {item_ids[0]} is negative")
    times = None if time is None else numbers(table, time, path)
    return Interactions(users, items, user_ids, item_ids, times, name)
