"""``lares recommend --output FILE``: lists with scores and ranks, of any number of users."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lares.cli.histories import Found, read_histories, rows_in
from lares.cli.id_lines import read_rows
from lares.cli.recommend_options import RecommendOptions
from lares.data.dataset import Sequences
from lares.data.readers import load_sequences
from lares.data.vocabulary import Vocabulary
from lares.errors import ConfigError, DataError
from lares.model.config import MOST_STEPS
from lares.model.model import LaresModel
from lares.plain import whole
from lares.recommender.asked import Asked, ItemLists, asked_by_places, in_rows_of
from lares.recommender.bulk import write_lists
from lares.recommender.ranked import How, ListMaker
from lares.recommender.spooled import HistorySpool
from lares.recommender.stored import load_stored
from lares.recommender.titles import read_titles
from lares.training.config import DataOptions
from lares.training.data_record import DataRecord
from lares.training.run_folder import find_run

_AT_ONCE = 10_000  # histories


class BulkData(NamedTuple):
    """Hold where histories lie, and what is known of the items.

    Attributes:
        folder: of the run or the model.
        path: of interactions; None is what lies beside the model.
        options: of reading them, beside the run's.
        popular: raw ids of items for who has no history, the most popular first.
    """

    folder: Path
    path: str | None
    options: Mapping[str, Any]
    popular: list[Any]


def write_file(
    model: LaresModel, options: RecommendOptions, data: BulkData, seed: int | None
) -> None:
    """Write lists into the file ``options.output``.

    Raises:
        DataError: an item or a user is unknown, or a file cannot be read.
        ConfigError: an option does not fit the model.
    """
    output, skip = Path(str(options.output)), options.unknown == "skip"
    vocabulary, sequences = model.vocabulary, None
    if vocabulary is None:
        vocabulary = Vocabulary(np.arange(1, model.config.n_items))
    if options.users is not None:
        sequences = _sequences(vocabulary, data)
        if model.vocabulary is None:
            vocabulary = _of_as_many(model, sequences)
    found = Found()
    how = _how(model, vocabulary, options, data.popular, seed, found)
    if sequences is None:
        room = next(folder for folder in output.absolute().parents if folder.is_dir())
        asked = _given(str(options.histories), vocabulary, room, found)
    else:
        asked = _known(str(options.users), sequences, vocabulary, skip)
    if not skip:
        found.require_ids()
        found.require_none()
    found.tell_empty()
    found.tell_unknown()
    write_lists(output, ListMaker(model, vocabulary, how), asked, say=_note)
    print(f"{output}: the lists of {len(asked):,} users")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _how(
    model: LaresModel,
    vocabulary: Vocabulary,
    options: RecommendOptions,
    popular: list[Any],
    seed: int | None,
    found: Found,
) -> How:
    """Return how lists are made; unknown items of files are counted."""
    exclude = _items(options.exclude, vocabulary, found)
    only = _items(options.only, vocabulary, found)
    emptied = vocabulary.find(popular)
    emptied = emptied[(emptied > 0) & ~np.isin(emptied, [] if exclude is None else exclude)]
    if only is not None:
        emptied = emptied[np.isin(emptied, only)]
    titles = None
    if options.items is not None:
        titles = read_titles(Path(options.items), vocabulary, options.titles_in)
        if titles.null_count:
            _note(f"{options.items} has no title of {titles.null_count:,} of {len(titles):,} items")
    depth = options.depth
    if depth is not None:
        depth = whole("--depth", depth, int(model.config.is_recurrent), MOST_STEPS)
    return How(
        k=whole("--k", options.k, 1, len(vocabulary)),
        remove_history=not options.keep_history,
        exclude=ItemLists(exclude, None),
        only=None if only is None else ItemLists(only, None),
        depth=depth,
        seed=seed,
        emptied=emptied if popular else None,
        titles=titles,
    )


def _items(name: str | None, vocabulary: Vocabulary, found: Found) -> NDArray[np.int64] | None:
    return None if name is None else np.unique(read_rows(Path(name), vocabulary, found))


def _given(name: str, vocabulary: Vocabulary, folder: Path, found: Found) -> Asked:
    """Return who has the histories in a file; they are kept in ``folder`` while they are needed."""
    spool = HistorySpool(folder)
    histories = read_histories(None, name)
    while some := list(islice(histories, _AT_ONCE)):
        for history in some:
            if not history.ids:
                found.add_empty(history.place)
        spool.add(rows_in(some, vocabulary, found))
    return spool.asked()


# --- users of the data -----------------------------------------------------------------------------


def _sequences(vocabulary: Vocabulary, data: BulkData) -> Sequences:
    """Return everybody's histories: of DATA, of what lies beside the model, or of the run's data."""
    stored = load_stored(data.folder, vocabulary)
    if data.path is None:
        if stored.sequences is None:
            raise ConfigError(f"{data.folder} knows no users; give DATA, where their histories are")
        if data.options:
            raise ConfigError(
                f"--data.{next(iter(data.options))} is for DATA, which is not given: the users are "
                f"those of {data.folder}"
            )
        return stored.sequences
    usual = DataOptions() if stored.config is None else stored.config.data
    reading = dataclasses.replace(usual, **data.options, path=data.path)
    sequences, notes = load_sequences(**dataclasses.asdict(reading))
    for note in notes if data.path != usual.path else ():  # of its own data training has told them
        _note(note)
    _say_if_others(data.folder, data.path, sequences)
    return sequences


def _say_if_others(folder: Path, path: str, sequences: Sequences) -> None:
    """Say if there are more or less of the data than when the run was trained on them."""
    run = find_run(folder)
    record = None if run is None else DataRecord.load(run.record)
    if record is None:
        return
    now = (len(sequences), len(sequences.vocabulary), len(sequences.items))
    difference = record.difference(DataRecord("", *now))
    if now != (record.users, record.items, record.interactions):
        _note(f"{path} is other data than {folder} was trained on: {difference}")


def _of_as_many(model: LaresModel, sequences: Sequences) -> Vocabulary:
    """Return the data's items as those of a model that does not know its items' ids.

    Raises:
        DataError: it has another number of them.
    """
    if sequences.vocabulary.n_items != model.config.n_items:
        raise DataError(
            f"{sequences.name} has {len(sequences.vocabulary):,} items, the model knows "
            f"{model.config.n_items - 1:,}, and does not know their ids"
        )
    return sequences.vocabulary


def _known(users: str, sequences: Sequences, vocabulary: Vocabulary, skip: bool) -> Asked:
    """Return users of the data: all, or those in a file.

    Raises:
        DataError: a user or an item is unknown, unless these are skipped.
    """
    moved, unknown = in_rows_of(sequences, vocabulary)
    if unknown:
        few = ", ".join(repr(item) for item in unknown[:3]) + ", ..." * (len(unknown) > 3)
        what = f"{sequences.name} has {len(unknown):,} items that the model does not know: {few}"
        if not skip:
            raise DataError(f"{what}; --unknown skip leaves them out of histories")
        _note(f"{what}; they are left out of histories")
    if users == "all":
        return asked_by_places(moved, None)
    known = Vocabulary(moved.user_ids)
    found = Found("user")
    places = read_rows(Path(users), known, found) - 1
    if not skip:
        found.require_none()
    found.tell_unknown()
    return asked_by_places(moved, places)
