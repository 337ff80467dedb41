"""Keep beside a saved model who the users are, what they had, and how the model came to be.

``recommender.json`` and ``users.parquet``. Without the second a model serves histories that are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lares.data.dataset import Sequences
from lares.data.ids import as_ids
from lares.data.tables import arrow_file
from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, DataError, LaresError
from lares.files import atomic_write, not_written, read_json, write_json
from lares.plain import one_of
from lares.recommender.tables import LIBRARIES
from lares.training.config import RunConfig, config_of, read_config
from lares.training.run_folder import find_run

FILE, USERS_FILE = "recommender.json", "users.parquet"
_ITEMS = b"lares_items"  # which items the rows of histories are of


class Stored(NamedTuple):
    """Hold what is saved beside a model.

    Attributes:
        config: options that it was trained with; None where they are not known.
        tables: library of the tables that are given back.
        sequences: everybody's whole history; None where nobody is known.
    """

    config: RunConfig | None
    tables: str
    sequences: Sequences | None


def save_stored(folder: Path, stored: Stored) -> None:
    """Write it into a folder, each file whole or not at all.

    Raises:
        CheckpointError: a file could not be written.
    """
    sequences, path = stored.sequences, folder / USERS_FILE
    try:
        if sequences is None:
            path.unlink(missing_ok=True)  # of those that this one replaces
        else:
            with atomic_write(path) as temporary:
                _write_sequences(temporary, sequences)
    except (OSError, pa.ArrowException) as error:
        raise not_written(path, error) from error
    config = None if stored.config is None else stored.config.to_dict()
    name = "" if sequences is None else sequences.name
    content = {"tables": stored.tables, "name": name, "options": config}
    write_json(folder / FILE, content)


def load_stored(folder: Path, vocabulary: Vocabulary) -> Stored:
    """Return what is saved beside a model; where that is nothing, or in a run, nobody is known.

    Args:
        folder: of the model or the run.
        vocabulary: of its items.

    Raises:
        CheckpointError: a file is broken, or does not belong to the model.
    """
    path = folder / FILE
    if not path.is_file():
        run = find_run(folder)
        return Stored(None if run is None else read_config(run.config), "arrow", None)
    content = read_json(path)
    try:
        options, tables, name = content["options"], content["tables"], str(content["name"])
        one_of("tables", tables, LIBRARIES)
        config = None if options is None else config_of(options)
    except (LaresError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not readable: {error}; save it again") from error
    users = folder / USERS_FILE
    sequences = _read_sequences(users, vocabulary, name) if users.is_file() else None
    return Stored(config, tables, sequences)


def _write_sequences(path: Path, sequences: Sequences) -> None:
    rows = pa.LargeListArray.from_arrays(pa.array(sequences.offsets), pa.array(sequences.items))
    table = pa.table({"user": sequences.user_ids, "rows": rows})
    mark = {_ITEMS: sequences.vocabulary.digest().hex().encode()}
    with open(path, "wb") as file:
        pq.write_table(table.replace_schema_metadata(mark), file)


def _read_sequences(path: Path, vocabulary: Vocabulary, name: str) -> Sequences:
    try:
        with arrow_file(path) as opened:
            table = pq.read_table(opened)
        users = as_ids(table["user"])
        lists = table["rows"].combine_chunks()
        items, offsets = lists.values.to_numpy(), lists.offsets.to_numpy().astype(np.int64)
        Vocabulary(users)  # checks them
    except (pa.ArrowException, OSError, KeyError, DataError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} holds no users and histories: {reason}") from error
    mark = (table.schema.metadata or {}).get(_ITEMS, b"").decode()
    if mark != vocabulary.digest().hex():
        raise CheckpointError(
            f"{path} was saved with other items than the model beside it; copy all files from the "
            "same folder"
        )
    if items.min(initial=1) < 1 or items.max(initial=1) > len(vocabulary):
        raise CheckpointError(f"{path} holds rows that are no items of the model beside it")
    return Sequences(items.astype(np.int32), offsets, users, vocabulary, name)
