"""RecBole's atomic files: tab-separated text whose header gives each field's type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.data.dataset import Dataset, Interactions, Split
from lares.data.tables import delimited_columns, id_codes, numbers, read_delimited
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError

ATOMIC_SUFFIX = ".inter"
_USER, _ITEM, _HISTORY, _TIME = "user_id", "item_id", "item_id_list", "timestamp"
_TYPES = {"token": pa.string(), "float": pa.float64(), "token_seq": pa.string()}


def _fields(path: Path) -> dict[str, str]:
    """Field name -> type of an atomic file's header."""
    fields = {}
    for column in delimited_columns(path, "\t"):
        name, _, kind = column.partition(":")
        if not kind:
            raise DataError(f"{path}, line 1: field {column!r} has no type; write NAME:TYPE")
        fields[name] = kind
    return fields


def _read(path: Path, wanted: tuple[str, ...]) -> pa.Table:
    """Columns of an atomic file, named without their types."""
    fields = _fields(path)
    missing = [name for name in wanted if name not in fields]
    if missing:
        raise DataError(
            f"{path} has no field {', '.join(map(repr, missing))}; its fields are "
            f"{', '.join(map(repr, fields))}"
        )
    full = [f"{name}:{fields[name]}" for name in wanted]
    types = {
        column: _TYPES[fields[name]]
        for column, name in zip(full, wanted, strict=True)
        if fields[name] in _TYPES
    }
    return read_delimited(path, full, delimiter="\t", types=types).rename_columns(list(wanted))


def _whole_numbers_if_possible(table: pa.Table, column: str) -> pa.Table:
    """Tokens that are all plain whole numbers become such, so that they sort and print as numbers."""
    values = table.column(column)
    if (
        len(values) == 0
        or not pc.all(pc.match_substring_regex(values, "^(0|[1-9][0-9]{0,17})$")).as_py()
    ):
        return table
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, values.cast(pa.int64()))


def read_atomic_interactions(path: Path, name: str) -> Interactions:
    """A plain ``.inter`` file: a user, an item, and a timestamp if there is one, in each row."""
    has_time = _TIME in _fields(path)
    table = _read(path, (_USER, _ITEM, _TIME) if has_time else (_USER, _ITEM))
    for column in (_USER, _ITEM):
        table = _whole_numbers_if_possible(table, column)
    users, user_ids = id_codes(table, _USER, path)
    items, item_ids = id_codes(table, _ITEM, path)
    times = numbers(table, _TIME, path) if has_time else None
    return Interactions(users, items, user_ids, item_ids, times, name)


def read_sequence_form(stem: Path, name: str) -> Dataset:
    """``NAME.train.inter`` and its fellows: each row is a sample, its history and its target.

    Raises:
        DataError: a file or a field is missing, or a history is empty.
    """
    tables = {}
    for split in ("train", "valid", "test"):
        path = Path(f"{stem}.{split}{ATOMIC_SUFFIX}")
        tables[split] = _read(path, (_HISTORY, _ITEM))
        if tables[split].num_rows == 0:
            raise DataError(f"{path} holds no sample")

    flat, lengths = {}, {}
    for split, table in tables.items():
        path = Path(f"{stem}.{split}{ATOMIC_SUFFIX}")
        histories = pc.utf8_trim_whitespace(table.column(_HISTORY).fill_null("")).combine_chunks()
        empty = pc.equal(histories, "")
        if pc.any(empty).as_py():
            line = pc.index(empty, True).as_py() + 2
            raise DataError(f"{path}, line {line}: the history is empty")
        # History and target side by side, as one list a row.
        joined = pc.binary_join_element_wise(histories, table.column(_ITEM).combine_chunks(), " ")
        lists = pc.split_pattern_regex(joined, pattern=" +")
        if isinstance(lists, pa.ChunkedArray):
            lists = lists.combine_chunks()
        if lists.null_count:
            line = pc.index(pc.is_null(lists), True).as_py() + 2
            raise DataError(f"{path}, line {line}: the target is empty")
        lengths[split] = pc.list_value_length(lists).to_numpy()
        flat[split] = lists.flatten()

    everything = pa.table({_ITEM: pa.chunked_array(list(flat.values()))})
    codes, ids = id_codes(_whole_numbers_if_possible(everything, _ITEM), _ITEM, stem)
    rows = (codes + 1).astype(np.int32)
    splits, first = {}, 0
    for split in tables:
        size = len(flat[split])
        splits[split] = _row_samples(rows[first : first + size], lengths[split])
        first += size
    n_samples = sum(len(split) for split in splits.values())
    return Dataset(
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        vocabulary=Vocabulary(ids),
        name=name,
        n_users=len(splits["test"]),
        n_interactions=n_samples,
    )


def _row_samples(items: NDArray[np.int32], lengths: NDArray[np.int32]) -> Split:
    """Samples that lie one after the other, each a history with its target behind it."""
    stops = np.cumsum(lengths, dtype=np.int64)
    return Split(items, stops - lengths, stops - 1)
