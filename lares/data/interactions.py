"""From the columns of a table to interactions: ids coded, times as numbers, empty cells counted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lares.data.conditions import parse_bound
from lares.data.dataset import Interactions, keep_core
from lares.data.filters import FilteredTable, drop_repeats, keep_within
from lares.data.ids import Coder, Codes, is_text, sort_codes
from lares.data.tables import ReadAgain, Table
from lares.data.times import Times, compact, join_pieces, nanoseconds_of_numbers, read_times
from lares.errors import DataError

DEFAULT_USER, DEFAULT_ITEM, DEFAULT_TIME = "user_id", "item_id", "timestamp"
ROW_ORDER = ""  # the name of a time column that stands for none
# What others call the columns of users, items and times, where no column has the default's name.
_OTHERS_NAMES = {
    "Amazon Reviews 2023": (DEFAULT_USER, "parent_asin", DEFAULT_TIME),
    "Amazon's reviews of 2014 and 2018": ("reviewerID", "asin", "unixReviewTime"),
    "Amazon's ratings": ("user", "item", DEFAULT_TIME),
    "MovieLens": ("userId", "movieId", DEFAULT_TIME),
}
_SHOWN_PLACES = 3
_SAMPLE_ROWS = 1000
_TIME_WORDS = ("time", "date", "timestamp", "ts", "epoch", "unix", "when", "day", "at")


@dataclass(frozen=True)
class Reading:
    """Say how interactions are to be read.

    Attributes:
        user, item: columns of ids.
        time: column of times, "" for the order of the rows on purpose, None for ``timestamp`` if there.
        delimiter: between the cells of text, ``tab`` for a tab; ``auto`` finds it.
        text_ids: keep ids text that could be numbers.
        drop_missing: leave out rows that lack a value; else they are an error.
        name: of the data; None is the file's.
        header: whether text with delimiters has a header line; else columns are called 0, 1, 2, ...
        where: condition that rows must fulfil; "" keeps all.
        since, until: bounds of time, both included; "" is none.
        repeats: what to do about an item that a user has again: one of ``Repeats``.
        core: keep only users and items with at least this many interactions; 0 keeps all.
    """

    user: str
    item: str
    time: str | None
    delimiter: str
    text_ids: bool
    drop_missing: bool
    name: str | None = None
    header: bool = True
    where: str = ""
    since: str = ""
    until: str = ""
    repeats: str = "keep"
    core: int = 0

    def filters(self) -> list[str]:
        """Return what leaves rows out, as messages call it."""
        usual = {"where": "", "since": "", "until": "", "repeats": "keep", "core": 0}
        return [
            f"{name}={getattr(self, name)}"
            for name, value in usual.items()
            if getattr(self, name) != value
        ]


def with_others_names(table: Table, how: Reading) -> tuple[Reading, str]:
    """Return how to read a table whose columns have names that others give them, and whose those are.

    Names that were asked for stay, and so do all where the table has the default's; then whose is "".
    """
    for whose, (user, item, time) in _OTHERS_NAMES.items():
        user = user if how.user == DEFAULT_USER and how.user not in table.names else how.user
        item = item if how.item == DEFAULT_ITEM and how.item not in table.names else how.item
        timed = time in table.names
        if (user, item) == (how.user, how.item) or not {user, item} <= set(table.names):
            continue
        if timed or item != "item":  # which is too common a name to tell anything by itself
            known = timed and how.time is None
            return replace(how, user=user, item=item, time=time if known else how.time), whose
    return how, ""


def choose_time(table: Table, how: Reading) -> tuple[str | None, str]:
    """Return the column of times, or None for the order of the rows, and what to say about it.

    Raises:
        DataError: there is no column of that name.
    """
    if how.time == ROW_ORDER:
        return None, ""
    if how.time is not None:
        table.require([how.time])
        return how.time, ""
    if DEFAULT_TIME in table.names:
        return DEFAULT_TIME, ""
    sample = table.head(_SAMPLE_ROWS)
    likely = [
        repr(name)
        for name in sample.column_names
        if name not in (how.user, how.item) and looks_like_times(name, sample.column(name))
    ]
    likely_times = (
        f"columns that look like times: {', '.join(likely)}"
        if likely
        else "no column looks like times"
    )
    return None, (
        f"rows are taken in the order of the file, as no time column was named and none is called "
        f"{DEFAULT_TIME!r}; {likely_times} (--data.time_column NAME orders by one, "
        f'--data.time_column "" means the order of the file)'
    )


def looks_like_times(name: str, sample: pa.ChunkedArray) -> bool:
    """Return whether a column seems to hold times: dates, numbers that would be times between 1990 and
    2100, or anything that can be times under a name that says so."""
    try:
        times = read_times(sample, lambda row: "")
    except (DataError, pa.ArrowException):  # the latter for types that have no times in them
        return False
    if times.missing.all():
        return False
    if "date" in times.form or "timestamp" in times.form:
        return True
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    if any(word.lower().endswith(_TIME_WORDS[:3]) or word.lower() in _TIME_WORDS for word in words):
        return True
    return nanoseconds_of_numbers(times) > 0


def read_interactions(table: Table, how: Reading, name: str, note: str = "") -> Interactions:
    """Return the interactions in a table, and what was taken to be so or left out as notes.

    Args:
        table: with a row for every interaction.
        how: to read it.
        name: of the data, if ``how`` has none.
        note: one more, if there is one.

    Raises:
        DataError: the table is empty, a value is missing, or is no id or no time.
    """
    how, whose = with_others_names(table, how)
    filtered = FilteredTable(table, how.where) if how.where.strip() else None
    table = filtered or table
    user, item = how.user, how.item
    table.require((user, item))
    time, time_note = choose_time(table, how)
    wanted = [user, item] + ([time] if time else [])
    if len(set(wanted)) < len(wanted):
        raise DataError(
            f"columns of users, items and times must differ; they are {', '.join(wanted)}"
        )
    while True:
        try:
            codes, times = _coded(table, wanted)
            break
        except ReadAgain:
            continue
    missing = {column: coded.codes < 0 for column, coded in codes.items()}
    if times is not None:
        missing[str(time)] = times.missing
    where_note = filtered.note() if filtered else ""
    if not len(missing[user]):
        raise DataError(f"{table.path} holds no interaction")
    kept, notes = kept_rows(table, missing, how.drop_missing)
    user_codes, user_ids = sort_codes(codes.pop(user).select(kept), how.text_ids)
    item_codes, item_ids = sort_codes(codes.pop(item).select(kept), how.text_ids)
    kept_times = None if times is None else times.select(kept)
    interactions = Interactions(
        user_codes,
        item_codes,
        user_ids,
        item_ids,
        None if kept_times is None else kept_times.values,
        how.name or name,
        notes=tuple(filter(None, (time_note, note, where_note, *notes))),
        source={
            "format": table.form,
            "columns": f"users {user!r}, items {item!r}{f', as in {whose}' * bool(whose)}",
            "user ids": describe_ids(user_ids),
            "item ids": describe_ids(item_ids),
            "times": "order of the rows" if times is None else f"column {time!r}, {times.form}",
        },
    )
    if how.since or how.until:
        since, until = (
            parse_bound(text, f"data.{name}") if text else None
            for name, text in (("since", how.since), ("until", how.until))
        )
        interactions = keep_within(interactions, kept_times, since, until)
    if how.repeats != "keep":
        interactions = drop_repeats(interactions, how.repeats)
    if how.core:
        interactions = keep_core(interactions, how.core)
    if kept_times is None or interactions.times is None:
        return interactions
    none_missing = np.zeros(len(interactions.times), dtype=bool)
    span = kept_times._replace(values=interactions.times, missing=none_missing).span()
    return replace(interactions, source={**interactions.source, "from, to": span})


def _coded(table: Table, wanted: list[str]) -> tuple[dict[str, Codes], Times | None]:
    """Return the codes of the first two columns and the times of a third, if there is one.

    Text of ids is coded batch by batch, so that all of it is never in memory.
    """
    coders = {column: Coder(table.typed, table.problem(column)) for column in wanted[:2]}
    times: list[pa.Array] = []
    for batch in table.batches(wanted):
        for column, coder in coders.items():
            coder.add(batch.column(column))
        times += [compact(batch.column(column)) for column in wanted[2:]]
    codes = {column: coder.finish() for column, coder in coders.items()}
    if not times:
        return codes, None
    try:
        return codes, read_times(join_pieces(times), table.place)
    except pa.ArrowException as error:
        raise table.problem(wanted[2])(
            f"has different types in different files: {error}"
        ) from error


def describe_ids(ids: pa.Array) -> str:
    """Return what ids are, in words."""
    return "text" if is_text(ids.type) else "whole numbers"


def kept_rows(
    table: Table, missing: dict[str, NDArray[np.bool_]], drop: bool
) -> tuple[slice | NDArray[np.bool_], tuple[str, ...]]:
    """Return the rows to keep, as an index, and what to say about the others.

    Args:
        table: that the rows are of.
        missing: by column, rows (N,) that lack a value.
        drop: whether such rows may be left out.

    Raises:
        DataError: values are missing and may not be, or no row is left.
    """
    rows = np.logical_or.reduce(list(missing.values()))
    if not rows.any():
        return slice(None), ()
    counts = ", ".join(
        f"{int(lacking.sum()):,} in {column!r}"
        for column, lacking in missing.items()
        if lacking.any()
    )
    count = f"{int(rows.sum()):,} of {len(rows):,} rows lack a value ({counts})"
    if drop:
        if rows.all():
            raise DataError(f"{table.path}: all {len(rows):,} rows lack a value ({counts})")
        return ~rows, (f"left out: {count}",)
    first = int(np.argmax(rows))
    column = next(column for column, lacking in missing.items() if lacking[first])
    more = [table.place(int(row)) for row in np.flatnonzero(rows)[1:_SHOWN_PLACES]]
    others = f"; also {'; '.join(more)}" if more else ""
    raise DataError(
        f"{table.place(first)}: column {column!r} is empty{others}. {count}; "
        "--data.drop_missing true leaves such rows out"
    )
