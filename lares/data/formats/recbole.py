"""RecBole's atomic files: tab-separated text whose header gives each field's type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.data.dataset import Dataset
from lares.data.file_names import SPLITS, files_in, stem, suffix
from lares.data.formats.delimited import DelimitedTable
from lares.data.ids import encode_column, sort_codes
from lares.data.interactions import Reading, describe_ids, kept_rows
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from lares.names import shown

ATOMIC_SUFFIX = ".inter"
_SPLIT = re.compile(rf"[.]({'|'.join(SPLITS)})$", re.IGNORECASE)  # at the end of a file's name


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
        DataError: the folder holds none, or files of several data sets.
    """
    if path.is_dir():
        stems = {atomic_stem(file) for file in _atomic_files(path)}
        if not stems:
            raise DataError(
                f"folder {path} holds no file ending in {ATOMIC_SUFFIX}; give the folder or the file "
                "of RecBole's data, or another --data.format"
            )
        if len(stems) > 1:
            raise DataError(
                f"folder {path} holds atomic files of several data sets "
                f"({', '.join(sorted(stem.name for stem in stems))}); name one file"
            )
        return stems.pop()
    name = stem(path) if suffix(path) == ATOMIC_SUFFIX else path.name
    return path.with_name(_SPLIT.sub("", name) or name)


def atomic_file(path: Path) -> Path:
    """Return the plain atomic file that ``path`` is or, if it is a folder, holds.

    Raises:
        DataError: the folder holds files of several data sets, or several that could be it, or none.
    """
    if path.is_file():
        return path
    file = _file_of(atomic_stem(path), "")
    if not file.is_file():
        there = ", ".join(other.name for other in _atomic_files(file.parent))
        raise DataError(
            f"there is no file {file}, and {there} are not taken for the sequence form, whose "
            f"NAME.{SPLITS[0]}{ATOMIC_SUFFIX} has a field of items and one called so with _list behind "
            "it (--data.item_column names the first)"
        )
    return file


def has_sequence_form(path: Path, item: str, delimiter: str) -> bool:
    """Return whether ``path`` is data in sequence form: a file called as a split whose rows have
    histories, or a folder with such files."""
    if path.is_file():
        is_split = suffix(path) == ATOMIC_SUFFIX and stem(path) != atomic_stem(path).name
        return is_split and _has_histories(path, item, delimiter)
    train = _file_of(atomic_stem(path), SPLITS[0])
    return train.is_file() and _has_histories(train, item, delimiter)


def _atomic_files(folder: Path) -> list[Path]:
    """Return the files in a folder whose names are those of atomic files, hidden ones left out."""
    return sorted(file for file in files_in(folder) if suffix(file) == ATOMIC_SUFFIX)


def _file_of(base: Path, split: str, like: Path | None = None) -> Path:
    """Return the atomic file ``NAME.inter`` or ``NAME.SPLIT.inter``, in capitals and compressed or not.

    Args:
        base: ``folder/NAME``.
        split: "" for none.
        like: a file beside it; of several that could be the one sought, that which ends alike is.

    Returns:
        The file; its usual name if there is none.

    Raises:
        DataError: there are several.
    """
    name = f"{base.name}.{split}".rstrip(".")
    files = _atomic_files(base.parent) if base.parent.is_dir() else []
    those = [file for file in files if _is_called(stem(file), base.name, split)]
    if like is not None and len(those) > 1:
        ending = like.name.removeprefix(stem(like))
        those = [file for file in those if file.name.removeprefix(stem(file)) == ending] or those
    if len(those) > 1:
        raise DataError(
            f"{base.parent} holds {' and '.join(file.name for file in those)}, which are the same file "
            "in different forms; keep one of them"
        )
    return those[0] if those else base.with_name(f"{name}{ATOMIC_SUFFIX}")


def _is_called(called: str, name: str, split: str) -> bool:
    """Return whether a file's name without suffixes is NAME, or NAME.SPLIT in any case of SPLIT."""
    if not split:
        return called == name
    return called.lower().endswith(f".{split}") and _SPLIT.sub("", called) == name


def _has_histories(path: Path, item: str, delimiter: str) -> bool:
    return f"{item}_list" in AtomicTable(path, delimiter).names


def read_sequence_form(path: Path, how: Reading) -> Dataset:
    """Return the data of ``NAME.train.inter`` and its fellows, in which each row is a sample.

    Args:
        path: one of the files, or their folder.
        how: to read them; the field of the histories is that of the items, the targets, with ``_list``.

    Raises:
        DataError: a file or a field is missing, or a history or a target is empty.
    """
    base, like = atomic_stem(path), path if path.is_file() else None
    texts, lengths = [], []
    notes: list[str] = []
    for split in SPLITS:
        table = AtomicTable(_file_of(base, split, like), how.delimiter)
        of_split, of_split_lengths, of_split_notes = _read_samples(table, how)
        texts.append(of_split)
        lengths.append(of_split_lengths)
        notes += of_split_notes
    coded = encode_column(pa.chunked_array(texts), False, table.problem(how.item))
    codes, ids = sort_codes(coded, how.text_ids)
    rows = (codes + 1).astype(np.int32)
    pieces = np.split(rows, np.cumsum([len(of_split) for of_split in texts])[:-1])
    train, valid, test = map(_row_samples, pieces, lengths)
    samples = (train, valid, test)
    # Every target is an interaction, and so is what opens a history. Where training has not every
    # prefix, or histories are cut, whole histories of the test samples may say more.
    opened = sum(int((split.ends - split.starts == 1).sum()) for split in samples)
    n_interactions = max(sum(map(len, samples)) + opened, len(test.items))
    return Dataset(
        train=train,
        valid=valid,
        test=test,
        vocabulary=Vocabulary(ids),
        name=how.name or base.name,
        n_users=len(test),
        n_interactions=n_interactions,
        notes=tuple(notes),
        source={
            "format": f"{table.form}s in sequence form",
            "item ids": describe_ids(ids),
            "times": "order of the histories",
        },
    )


def _read_samples(
    table: AtomicTable, how: Reading
) -> tuple[pa.Array, NDArray[np.int64], Sequence[str]]:
    """Return raw items (n,) of all samples, a history and its target after the other, the number of
    each (S,), and notes."""
    columns = table.read((f"{how.item}_list", how.item)).combine_chunks()
    if columns.num_rows == 0:
        raise DataError(f"{table.path} holds no sample")
    histories, targets = (
        pc.utf8_trim_whitespace(column.fill_null("")).combine_chunks() for column in columns.columns
    )
    missing = {
        name: pc.equal(cells, "").to_numpy(zero_copy_only=False)
        for name, cells in zip(columns.column_names, (histories, targets), strict=True)
    }
    kept, notes = kept_rows(table, missing, how.drop_missing)
    if notes:
        histories, targets = (cells.filter(pa.array(kept)) for cells in (histories, targets))
    several = pc.match_substring(targets, " ").to_numpy(zero_copy_only=False)
    if several.any():
        row = int(np.argmax(several))
        place = row if isinstance(kept, slice) else int(np.flatnonzero(kept)[row])
        raise table.problem(how.item)(
            f"holds {shown(targets[row].as_py())}; a target is one item", place
        )
    # History and target side by side, as one list a row.
    joined = pc.binary_join_element_wise(histories, targets, pa.scalar(" ", pa.large_string()))
    lists = pc.split_pattern_regex(joined, pattern=" +")
    sizes = pc.list_value_length(lists).to_numpy().astype(np.int64)
    return lists.flatten(), sizes, notes


def _row_samples(items: NDArray[np.int32], lengths: NDArray[np.int64]) -> Split:
    """Return samples that lie one after the other, each a history with its target behind it."""
    stops = np.cumsum(lengths, dtype=np.int64)
    return Split(items, stops - lengths, stops - 1)
