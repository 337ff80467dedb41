"""From files to samples: ``load_dataset`` for every form of data that this package reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from lares.data.conditions import Repeats, check_bound, check_condition
from lares.data.dataset import Dataset, Interactions, Sequences, group_by_user, leave_one_out
from lares.data.fetch.sets import located
from lares.data.file_names import require_there
from lares.data.formats.arrow import ArrowTable, is_in_memory
from lares.data.formats.delimited import DelimitedTable
from lares.data.formats.json_lines import JsonTable
from lares.data.formats.parquet import ParquetTable
from lares.data.forms import FORMAT_NAMES, FORMS, known_form
from lares.data.interactions import DEFAULT_ITEM, DEFAULT_USER, Reading, read_interactions
from lares.data.tables import Table, part_files
from lares.errors import DataError
from lares.plain import one_of, whole


def load_dataset(
    path: str | Path | Any,
    *,
    format: str = "auto",
    user_column: str = DEFAULT_USER,
    item_column: str = DEFAULT_ITEM,
    time_column: str | None = None,
    header: bool = True,
    where: str = "",
    since: str = "",
    until: str = "",
    repeats: str = "keep",
    core: int = 0,
    delimiter: str = "auto",
    text_ids: bool = False,
    drop_missing: bool = False,
    name: str | None = None,
) -> Dataset:
    """Read interactions and split them by leave-one-out.

    Args:
        path: a file or folder of one of the forms of :mod:`lares.data.forms`, or the name of a public
            set (:mod:`lares.data.fetch.sets`), which is fetched if need be. RecBole's sequence form
            (``NAME.train.inter`` and its fellows) keeps its own split. Or a table in memory, as
            :class:`~lares.data.formats.arrow.ArrowTable` takes it.
        format: name of the form; ``auto`` goes by names, columns and first lines. ``amazon23`` joins
            the three files of its ``last_out`` form where ``path`` is one of them.
        user_column, item_column: of the ids.
        time_column: to order a user's rows by: whole or real numbers, ISO 8601 dates, or Arrow's dates
            and timestamps. None takes ``timestamp`` if there, else the order of the rows, which ``""``
            asks for. Ties keep the order of the rows.
        header: whether text with delimiters has a header line; without one columns are called by their
            numbers from ``"0"``.
        where: condition that rows must fulfil, on any columns: ``rating >= 4 and event in ('view',
            'buy')``. Comparisons, ``and``, ``or``, ``not``, ``in``, parentheses; ``""`` keeps all rows.
        since, until: the first and the last time to keep: a date, a date with time, or a number as the
            column of times has them; ``""`` is none.
        repeats: ``keep``; ``consecutive`` leaves out an item that is the user's item before it, too;
            ``first`` and ``last`` keep an item's first or last time with the user.
        core: keep only users and items with at least this many interactions; 0 keeps all.
        delimiter: between the cells of text, ``tab`` for a tab; ``auto`` finds it.
        text_ids: take ids for text even where all are whole numbers.
        drop_missing: leave out rows that lack an id or a time; else they are an error.
        name: of the data in tables; by default the file's, or what kind of table it is.

    Raises:
        DataError: the data cannot be used; the message gives the file, and line or column.
        DownloadError: a public set cannot be fetched.
        ConfigError: ``core`` is no such number, ``where`` no condition, a bound no time.
    """
    how = _reading(
        user_column,
        item_column,
        time_column,
        delimiter=delimiter,
        text_ids=text_ids,
        drop_missing=drop_missing,
        name=name,
        header=header,
        where=where,
        since=since,
        until=until,
        repeats=repeats,
        core=core,
    )
    read, source = _read(path, format, how)
    if isinstance(read, Dataset):
        return replace(read, source=source)
    dataset = leave_one_out(group_by_user(read))
    return replace(dataset, notes=read.notes, source=source)


def load_sequences(
    path: str | Path | Any, *, format: str = "auto", **reading: Any
) -> tuple[Sequences, tuple[str, ...]]:
    """Return everybody's history, of any length, in interactions, and the notes of a dataset of them.

    Args:
        path, format: as of :func:`load_dataset`.
        reading: its other arguments.

    Raises:
        DataError: as :func:`load_dataset`, or the data are split already and do not say who is who.
    """
    columns = (DEFAULT_USER, DEFAULT_ITEM, None)
    user, item, time = (
        reading.pop(f"{name}_column", usual)
        for name, usual in zip(("user", "item", "time"), columns, strict=True)
    )
    read, _ = _read(path, format, _reading(user, item, time, **reading))
    if not isinstance(read, Dataset):
        return group_by_user(read), read.notes
    if read.sequences is None:
        raise DataError(
            f"{path} is split already, as RecBole's sequence form is, and does not say who is who"
        )
    return read.sequences, read.notes


def _reading(user: str, item: str, time: str | None, **more: Any) -> Reading:
    """Return how to read interactions; ``ConfigError`` for what is none of the choices."""
    usual = {"delimiter": "auto", "text_ids": False, "drop_missing": False}
    how = Reading(user=user, item=item, time=time, **{**usual, **more})
    one_of("repeats", how.repeats, get_args(Repeats))
    check_condition("where", how.where)
    check_bound("since", how.since)
    check_bound("until", how.until)
    return replace(how, core=whole("core", how.core, 0))


def _read(
    path: str | Path | Any, format: str, how: Reading
) -> tuple[Interactions | Dataset, dict[str, str]]:
    """Return what a file or a table holds, and how it was understood."""
    if format not in FORMAT_NAMES:
        raise DataError(f"format is {format!r}; it must be one of {', '.join(FORMAT_NAMES)}")
    if not how.header and format not in ("auto", "csv"):
        raise DataError(
            f"header=False is for text with delimiters, the format csv, and not for {format}"
        )
    if is_in_memory(path) and format != "auto":
        raise DataError(f"format is {format!r}, but a table in memory is no file; leave it out")
    if is_in_memory(path):
        table, sign = ArrowTable(path), "given in memory"
        read: Interactions | Dataset = read_interactions(table, how, str(table.path))
    else:
        path = located(path)
        form, sign = (
            (FORMS[format], "asked for") if format != "auto" else known_form(path, how.header)
        )
        read = form.read(form, path, how)
    return read, {"format": read.source["format"], "known by": sign, **read.source}


def open_table(path: Path, wanted: Sequence[str]) -> Table:
    """Return the table in a Parquet, CSV or JSON lines file, or in a folder of such parts.

    Args:
        path: file or folder.
        wanted: columns that it should have.

    Raises:
        DataError: there is no such file, or its form is another.
    """
    require_there(path)
    form, _ = known_form(path)
    if form.name not in ("parquet", "csv", "jsonl"):
        raise DataError(f"{path} is {form.name}; it must be a table in Parquet, CSV or JSON lines")
    parts = part_files(path, form.suffixes)
    if form.name == "jsonl":
        return JsonTable(path, parts)
    if form.name == "parquet":
        return ParquetTable(path, parts)
    return DelimitedTable(path, parts=parts, wanted=wanted)
