"""Titles of items, from a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from lares.data.embed import ItemTexts, read_item_texts
from lares.data.file_names import require_there
from lares.data.readers import open_table
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError

# What columns are called, where nothing is said.
_IDS = ("item_id", "movieId", "parent_asin", "asin", "item", "id")
_TITLES = ("title", "name")
# MovieLens' files without a header line, and what stands between their cells.
_MOVIELENS = {"movies.dat": "::", "u.item": "|"}


def read_titles(path: Path, vocabulary: Vocabulary, columns: Sequence[str] = ()) -> pa.Array:
    """Return a title (n,) for every item of a vocabulary, null where there is none.

    Args:
        path: table in Parquet, CSV or JSON lines, or MovieLens' ``movies.dat`` or ``u.item``.
        vocabulary: of the items.
        columns: of ids and titles; none are found by their names.

    Raises:
        DataError: the table cannot be read, or holds no item that is known.
    """
    require_there(path)
    texts = _movielens(path) if path.name in _MOVIELENS else _table(path, columns)
    rows = vocabulary.find(texts.items)
    if not rows.any():
        raise DataError(
            f"{path}: none of its {len(rows):,} items is known to the model, such as "
            f"{texts.items[0]!r}"
        )
    titles = np.full(vocabulary.n_items, None, dtype=object)
    titles[rows] = [text or None for text in texts.texts]
    return pa.array(titles[1:], pa.large_string())


def _table(path: Path, columns: Sequence[str]) -> ItemTexts:
    if not columns:
        names = open_table(path, ()).names
        columns = [
            next((name for name in usual if name in names), usual[0]) for usual in (_IDS, _TITLES)
        ]
        if not {*columns} <= {*names}:
            raise DataError(
                f"{path} has columns {', '.join(map(repr, names))}; --item_columns ID,TITLE says which "
                "hold ids and titles"
            )
    return read_item_texts(path, columns[0], columns[1:])


def _movielens(path: Path) -> ItemTexts:
    """Return the titles in lines ``ID::TITLE::...``, which earlier releases have in Latin-1."""
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    between = _MOVIELENS[path.name]
    cells = [line.split(between)[:2] for line in text.split("\n") if line.strip()]
    if not cells or min(map(len, cells)) < 2:
        raise DataError(
            f"{path} is not MovieLens' file of items: ID{between}TITLE{between}... a line"
        )
    return ItemTexts([item for item, _ in cells], [title for _, title in cells])
