"""The rank of every user's target, as rows of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import Tensor

from lares.data.dataset import Dataset
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from lares.table_files import table_file

_BATCH = 1 << 16  # rows written together


def require_users(dataset: Dataset) -> None:
    """Raise ``DataError`` if the data do not say whose their samples are."""
    if dataset.sequences is None:
        raise DataError(
            f"{dataset.name} was split already and does not say whose its samples are, as in RecBole's "
            "sequence form; ranks by user need interactions with users"
        )


def write_ranks(
    path: Path, ranks: Mapping[int, Tensor], split: Split, read: Dataset, vocabulary: Vocabulary
) -> None:
    """Write a row for every user and depth: ``user``, ``target``, ``depth``, and ``rank`` from 1.

    Args:
        path: of the file, whose suffix says the form; it is written whole or not at all.
        ranks: {depth: (S,) from 0}.
        split: the samples.
        read: the data that they are of, as they were read, with everybody's history.
        vocabulary: of the split's items.

    Raises:
        DataError: as :func:`require_users`.
        CheckpointError: the file cannot be written.
    """
    require_users(read)
    tables = _tables(ranks, split, read, vocabulary)
    first = next(tables)
    with table_file(path, first.schema) as add:
        add(first)
        for table in tables:
            add(table)


def _tables(
    ranks: Mapping[int, Tensor], split: Split, read: Dataset, vocabulary: Vocabulary
) -> Iterator[pa.Table]:
    sequences = read.sequences
    assert sequences is not None
    ids = pa.array(sequences.user_ids)
    # A sample's target lies in its user's stretch of the items, also where samples were left out.
    users = np.searchsorted(sequences.offsets, split.ends, side="right") - 1
    depths = np.array(list(ranks), dtype=np.int64)
    together = max(1, _BATCH // len(depths))
    for first in range(0, len(split), together):
        part = slice(first, first + together)
        found = np.stack([of_depth[part].cpu().numpy() for of_depth in ranks.values()], axis=1)
        rows = np.repeat(np.arange(len(found)), len(depths))
        yield pa.table(
            {
                "user": ids.take(pa.array(users[part][rows])),
                "target": vocabulary.take(split.targets[part][rows]),
                "depth": np.tile(depths, len(found)),
                "rank": found.ravel() + 1,
            }
        )
