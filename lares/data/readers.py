"""From files to samples: ``load_dataset`` for every form of data that this package reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lares.data.dataset import Dataset, Interactions, group_by_user, keep_core, leave_one_out
from lares.data.file_names import FORMATS, SPLITS, kind, last_name, require_there, stem
from lares.data.formats.arrow import ArrowTable, is_in_memory
from lares.data.formats.delimited import DelimitedTable
from lares.data.formats.parquet import ParquetTable
from lares.data.formats.recbole import (
    ATOMIC_SUFFIX,
    AtomicTable,
    atomic_file,
    has_sequence_form,
    read_sequence_form,
)
from lares.data.interactions import Reading, read_interactions
from lares.data.tables import Table
from lares.errors import DataError
from lares.plain import whole

_MOVIELENS_FILE = "u.data"
_MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_ITEM, _AMAZON_ITEM = "item_id", "parent_asin"


def load_dataset(
    path: str | Path | Any,
    *,
    format: str = "auto",
    user_column: str = "user_id",
    item_column: str = _ITEM,
    time_column: str | None = None,
    core: int = 0,
    delimiter: str = "auto",
    text_ids: bool = False,
    drop_missing: bool = False,
    name: str | None = None,
) -> Dataset:
    """Read interactions and split them by leave-one-out.

    Args:
        path: a Parquet or CSV file, or a folder of such parts; a RecBole ``.inter`` file or the folder
            of one (plain interactions, or sequence form with ``NAME.train.inter`` and its fellows,
            whose own split is kept); an Amazon Reviews 2023 5-core CSV; MovieLens ``u.data``. Or a
            table in memory, as :class:`~lares.data.formats.arrow.ArrowTable` takes it.
        format: one of ``FORMATS``; ``auto`` goes by name and columns. ``amazon23`` joins the three
            files of its ``last_out`` form where ``path`` is one of them.
        user_column, item_column: of the ids.
        time_column: to order a user's rows by: whole or real numbers, ISO 8601 dates, or Arrow's dates
            and timestamps. None takes ``timestamp`` if there, else the order of the rows, which ``""``
            asks for. Ties keep the order of the rows.
        core: keep only users and items with at least this many interactions; 0 keeps all.
        delimiter: between the cells of text, ``tab`` for a tab; ``auto`` finds it.
        text_ids: take ids for text even where all are whole numbers.
        drop_missing: leave out rows that lack an id or a time; else they are an error.
        name: of the data in tables; by default the file's, or what kind of table it is.

    Raises:
        DataError: the data cannot be used; the message gives the file, and line or column.
        ConfigError: ``core`` is no such number.
    """
    if format not in FORMATS:
        raise DataError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    core = whole("core", core, 0)
    how = Reading(user_column, item_column, time_column, delimiter, text_ids, drop_missing, name)
    if is_in_memory(path):
        table = ArrowTable(path)
        if format != "auto":
            raise DataError(f"format is {format!r}, but {table.path} is no file; leave it out")
        return _samples_of(read_interactions(table, how, str(table.path)), core)
    path = Path(path)
    require_there(path)
    if format == "auto":
        format = _guess_format(path)
    if format == "recbole" and has_sequence_form(path, item_column, delimiter):
        if core:
            raise DataError(
                f"{path} is in sequence form, split already: core={core} cannot be applied"
            )
        return read_sequence_form(path, how)
    return _samples_of(_READERS[format](path, how), core)


def _samples_of(interactions: Interactions, core: int) -> Dataset:
    """Return the samples in interactions, of users and items with at least ``core``."""
    if core:
        interactions = keep_core(interactions, core)
    dataset = leave_one_out(group_by_user(interactions))
    return replace(dataset, notes=interactions.notes, source=interactions.source)


def open_table(path: Path, wanted: Sequence[str]) -> Table:
    """Return the table in a Parquet or CSV file, or in a folder of such parts.

    Args:
        path: file or folder.
        wanted: columns that it should have.

    Raises:
        DataError: there is no such file, or its form is another.
    """
    require_there(path)
    form = _guess_format(path)
    if form not in ("parquet", "csv"):
        raise DataError(f"{path} is {form}; it must be a table in Parquet or CSV")
    return ParquetTable(path) if form == "parquet" else DelimitedTable(path, wanted=wanted)


def _guess_format(path: Path) -> str:
    """Return the format that the names of a file, or of those in a folder, tell."""
    if not path.is_dir():
        if path.name.lower() == _MOVIELENS_FILE:
            return "movielens"
        form = kind(path)
        if form is None:
            found_suffix = repr(path.suffix) if path.suffix else "a file without suffix"
            raise DataError(
                f"{path}: cannot tell the format of {found_suffix}; "
                f"--data.format names it ({', '.join(FORMATS[1:])})"
            )
        return form
    if (path / _MOVIELENS_FILE).is_file():
        return "movielens"
    files = [file for file in path.iterdir() if file.name[0] not in "._" and file.is_file()]
    kinds = {kind(file) for file in files} - {None}
    for form in ("recbole", "parquet", "csv"):
        if form in kinds:
            return form
    raise DataError(
        f"folder {path} holds neither {_MOVIELENS_FILE}, nor a file ending in {ATOMIC_SUFFIX}, nor CSV "
        "or Parquet files"
    )


def _read_parquet(path: Path, how: Reading) -> Interactions:
    return read_interactions(ParquetTable(path), how, _name(path), _companions_note(path))


def _read_csv(path: Path, how: Reading) -> Interactions:
    """CSV; with ``parent_asin`` for items where that is what Amazon Reviews 2023 has for them."""
    table = DelimitedTable(path, delimiter=how.delimiter, wanted=(how.user, how.item))
    if how.item == _ITEM and _ITEM not in table.names and _AMAZON_ITEM in table.names:
        how = replace(how, item=_AMAZON_ITEM)
        table.form = f"Amazon Reviews 2023, {table.form}"
    return read_interactions(table, how, _name(path), _companions_note(path))


def _read_amazon(path: Path, how: Reading) -> Interactions:
    """A CSV of Amazon Reviews 2023, or all three of its ``last_out`` form where ``path`` is one."""
    name, split = _name(path), _split(path)
    parts = None
    if split is not None:
        name = name.removesuffix(f".{split}")
        parts = [_companion(path, split, other) for other in SPLITS]
        missing = [part.name for part in parts if not part.is_file()]
        if missing:
            raise DataError(
                f"{path} is one of three parts; beside it {', '.join(missing)} is missing"
            )
    table = DelimitedTable(path, parts=parts, delimiter=how.delimiter)
    table.form = f"Amazon Reviews 2023, {table.form}"
    return read_interactions(table, replace(how, item=_AMAZON_ITEM), name)


def _read_recbole(path: Path, how: Reading) -> Interactions:
    """A plain atomic file."""
    file = atomic_file(path)
    table = AtomicTable(file, how.delimiter)
    return read_interactions(table, how, stem(file), _companions_note(file))


def _read_movielens(path: Path, how: Reading) -> Interactions:
    """MovieLens 100K's ``u.data``: tab separated, without a header."""
    file = path / _MOVIELENS_FILE if path.is_dir() else path
    table = DelimitedTable(file, delimiter="\t", quoted=False, header=_MOVIELENS_COLUMNS)
    table.form = "MovieLens 100K"
    return read_interactions(table, how, "ml-100k")


_READERS = {
    "parquet": _read_parquet,
    "csv": _read_csv,
    "amazon23": _read_amazon,
    "recbole": _read_recbole,
    "movielens": _read_movielens,
}


def _name(path: Path) -> str:
    return last_name(path) if path.is_dir() else stem(path)


def _split(path: Path) -> str | None:
    """Return the split that a file's name ends in, as in ``x.train.csv``."""
    if path.is_dir():
        return None
    return next((split for split in SPLITS if stem(path).endswith(f".{split}")), None)


def _companion(path: Path, split: str, other: str) -> Path:
    """Return the name of the file of another split beside ``path``."""
    name = stem(path)
    return path.with_name(name.removesuffix(split) + other + path.name.removeprefix(name))


def _companions_note(path: Path) -> str:
    """Return what to say about files of other splits beside one that is read alone; "" for none."""
    split = _split(path)
    others = [] if split is None else [_companion(path, split, o) for o in SPLITS if o != split]
    there = [other.name for other in others if other.is_file()]
    if not there:
        return ""
    joined = "; --data.format amazon23 joins them" if kind(path) == "csv" else ""
    return f"{path.name} alone is read, not {' and '.join(there)} beside it{joined}"
