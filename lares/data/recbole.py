"""RecBole's atomic files: tab-separated text whose header gives each field's type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.data.dataset import Dataset, Split
from lares.data.delimited import DelimitedTable
from lares.data.formats import SPLITS, suffix
from lares.data.ids import encode_column, sort_codes
from lares.data.interactions import describe_ids, kept_rows
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError

ATOMIC_SUFFIX = ".inter"


class AtomicTable(DelimitedTable):
    """An atomic file; its columns are called as its fields are, without their types.

    Args:
        path: the file.
        delimiter: between cells; ``auto`` is a tab.

    Raises:
        DataError: the file cannot be read, or a field has no type.
    """

    def __init__(self, path: Path, delimiter: str = "auto") -> None:
        super().__init__(path, delimiter="tab" if delimiter == "auto" else delimiter, quoted=False)
        untyped = [column for column in self.names if not column.partition(":")[2]]
        if untyped:
            raise DataError(f"{path}, line 1: field {untyped[0]!r} has no type; write NAME:TYPE")
        self.rename([column.partition(":")[0] for column in self.names])
        self.form = "RecBole atomic file"


def atomic_stem(path: Path) -> Path:
    """Return ``folder/NAME`` of atomic files, from the folder, from any of its files, or from itself.

    Raises:
        DataError: the folder holds files of several data sets.
    """
    if path.is_dir():
        stems = {atomic_stem(file) for file in path.iterdir() if suffix(file) == ATOMIC_SUFFIX}
        if len(stems) != 1:
            raise DataError(
                f"folder {path} holds atomic files of several data sets "
                f"({', '.join(sorted(stem.name for stem in stems))}); name one file"
            )
        return stems.pop()
    name = path.stem if suffix(path) == ATOMIC_SUFFIX else path.name
    for split in SPLITS:
        name = name.removesuffix(f".{split}")
    return path.with_name(name)


def atomic_file(path: Path) -> Path:
    """Return the plain atomic file that ``path`` is or, if it is a folder, holds.

    Raises:
        DataError: the folder holds files of several data sets.
    """
    return path if path.is_file() else Path(f"{atomic_stem(path)}{ATOMIC_SUFFIX}")


def has_sequence_form(path: Path, item: str, delimiter: str) -> bool:
    """Return whether ``path`` is data in sequence form: a file called as a split whose rows have
    histories, or a folder with such files."""
    if path.is_file():
        is_split = suffix(path) == ATOMIC_SUFFIX and path.stem != atomic_stem(path).name
        return is_split and _has_histories(path, item, delimiter)
    train = Path(f"{atomic_stem(path)}.{SPLITS[0]}{ATOMIC_SUFFIX}")
    return train.is_file() and _has_histories(train, item, delimiter)


def _has_histories(path: Path, item: str, delimiter: str) -> bool:
    return f"{item}_list" in AtomicTable(path, delimiter).names


def read_sequence_form(
    stem: Path,
    name: str,
    *,
    item: str = "item_id",
    delimiter: str = "auto",
    text_ids: bool = False,
    drop_missing: bool = False,
) -> Dataset:
    """Return the data of ``NAME.train.inter`` and its fellows, in which each row is a sample.

    Args:
        stem: ``folder/NAME``.
        name: of the data.
        item: field of the targets; that of the histories is the same with ``_list``.
        delimiter: between cells; ``auto`` is a tab.
        text_ids: keep ids text that could be numbers.
        drop_missing: leave out samples without history or target; else they are an error.

    Raises:
        DataError: a file or a field is missing, or a history or a target is empty.
    """
    texts, lengths = [], []
    notes: list[str] = []
    for split in SPLITS:
        table = AtomicTable(Path(f"{stem}.{split}{ATOMIC_SUFFIX}"), delimiter)
        found, found_lengths, found_notes = _read_samples(table, item, drop_missing)
        texts.append(found)
        lengths.append(found_lengths)
        notes += found_notes
    found = encode_column(pa.chunked_array(texts), False, table.problem(item))
    codes, ids = sort_codes(found, text_ids)
    rows = (codes + 1).astype(np.int32)
    ends = np.cumsum([len(found) for found in texts])
    train, valid, test = (
        _row_samples(rows[end - len(found) : end], size)
        for end, found, size in zip(ends, texts, lengths, strict=True)
    )
    return Dataset(
        train=train,
        valid=valid,
        test=test,
        vocabulary=Vocabulary(ids),
        name=name,
        n_users=len(test),
        n_interactions=len(train) + len(valid) + len(test),
        notes=tuple(notes),
        source={
            "format": f"{table.form}s in sequence form",
            "item ids": describe_ids(ids),
            "times": "order of the histories",
        },
    )


def _read_samples(
    table: AtomicTable, item: str, drop_missing: bool
) -> tuple[pa.Array, NDArray[np.int64], Sequence[str]]:
    """Return raw items (n,) of all samples, a history and its target after the other, the number of
    each (S,), and notes."""
    columns = table.read((f"{item}_list", item)).combine_chunks()
    if columns.num_rows == 0:
        raise DataError(f"{table.path} holds no sample")
    histories, targets = (
        pc.utf8_trim_whitespace(column.fill_null("")).combine_chunks() for column in columns.columns
    )
    missing = {
        name: pc.equal(cells, "").to_numpy(zero_copy_only=False)
        for name, cells in zip(columns.column_names, (histories, targets), strict=True)
    }
    kept, notes = kept_rows(table, missing, drop_missing)
    if notes:
        histories, targets = (cells.filter(pa.array(kept)) for cells in (histories, targets))
    # History and target side by side, as one list a row.
    joined = pc.binary_join_element_wise(histories, targets, pa.scalar(" ", pa.large_string()))
    lists = pc.split_pattern_regex(joined, pattern=" +")
    sizes = pc.list_value_length(lists).to_numpy().astype(np.int64)
    return lists.flatten(), sizes, notes


def _row_samples(items: NDArray[np.int32], lengths: NDArray[np.int64]) -> Split:
    """Return samples that lie one after the other, each a history with its target behind it."""
    stops = np.cumsum(lengths, dtype=np.int64)
    return Split(items, stops - lengths, stops - 1)
