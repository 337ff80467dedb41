"""Sequences, and the leave-one-out samples in them (LARES, arXiv 2505.16865, section 4.1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lares.data.digest import digest
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError


@dataclass(frozen=True)
class Sequences:
    """Everybody's items, oldest first, one user after the other.

    Attributes:
        items: (N,) int32 catalogue rows.
        offsets: (U + 1,) int64; user ``u`` has ``items[offsets[u] : offsets[u + 1]]``.
        user_ids: (U,) raw user ids, an Arrow array where they were read from a file.
        vocabulary: of the items.
        name: of the data, for tables and messages.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    user_ids: Any
    vocabulary: Vocabulary
    name: str

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Dataset:
    """Samples to train, validate and test on.

    Attributes:
        train, valid, test: samples.
        vocabulary: of the items.
        name: of the data.
        n_users, n_interactions: of the data read.
        notes: what a reader of the data should be told, a sentence each: what was left out, or taken
            to be so for want of a word.
        source: how the file was understood, by subject: its format, its ids, its times.
        sequences: everybody's whole history, if the data say who is who.
    """

    train: Split
    valid: Split
    test: Split
    vocabulary: Vocabulary
    name: str
    n_users: int
    n_interactions: int
    notes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    sequences: Sequences | None = None

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, valid and test."""
        return self.train, self.valid, self.test

    def digest(self) -> str:
        """Return a hash of samples and vocabulary, in hexadecimal digits.

        The same samples in the same order have the same hash on any machine, at any path, and in any
        form of file that keeps their ids and what is a number; name and notes do not count.
        """
        return digest(self.vocabulary, self.splits)

    def item_counts(self) -> NDArray[np.int64]:
        """(V,) how often each item is the target of a training sample or opens a history."""
        # A history is opened where it has one item: samples may each carry a copy of their history.
        opens = self.train.starts[self.train.ends - self.train.starts == 1]
        counted = np.unique(np.concatenate((opens, self.train.ends)))
        counts: NDArray[np.int64] = np.bincount(
            self.train.items[counted], minlength=self.vocabulary.n_items
        )
        return counts

    def with_vocabulary(self, vocabulary: Vocabulary) -> Dataset:
        """The same samples with items in the rows that ``vocabulary`` has for them.

        Raises:
            DataError: it lacks an item of this data.
        """
        if self.vocabulary.equals(vocabulary):
            return self
        rows = np.zeros(self.vocabulary.n_items, dtype=np.int32)
        rows[1:] = vocabulary.encode(self.vocabulary.ids.tolist())
        moved = {
            id(split.items): rows[split.items] for split in self.splits
        }  # which may share items
        train, valid, test = (replace(split, items=moved[id(split.items)]) for split in self.splits)
        sequences = self.sequences
        if sequences is not None:  # their items are those of the samples
            items = moved[id(sequences.items)]
            sequences = replace(sequences, items=items, vocabulary=vocabulary)
        return replace(
            self, vocabulary=vocabulary, train=train, valid=valid, test=test, sequences=sequences
        )


@dataclass(frozen=True)
class Interactions:
    """Rows of a file, ids coded.

    Attributes:
        users, items: (N,) int32 codes into the id arrays.
        user_ids, item_ids: distinct raw ids, ascending, as :mod:`lares.data.ids` has them.
        times: (N,) numbers to order a user's rows by, or None to keep the order of the rows.
        name: of the data.
        notes, source: as of :class:`Dataset`.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    user_ids: pa.Array
    item_ids: pa.Array
    times: NDArray[Any] | None
    name: str
    notes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)

    def with_note(self, note: str) -> Interactions:
        """The same rows with one more thing to tell."""
        return replace(self, notes=(*self.notes, note))

    def select(self, kept: NDArray[np.bool_]) -> Interactions:
        """The rows where ``kept`` (N,) holds, their codes counted anew."""
        users, user_codes = np.unique(self.users[kept], return_inverse=True)
        items, item_codes = np.unique(self.items[kept], return_inverse=True)
        return replace(
            self,
            users=user_codes.astype(np.int32),
            items=item_codes.astype(np.int32),
            user_ids=self.user_ids.take(pa.array(users)),
            item_ids=self.item_ids.take(pa.array(items)),
            times=None if self.times is None else self.times[kept],
        )


def keep_core(interactions: Interactions, core: int) -> Interactions:
    """Only users and items with at least ``core`` interactions, dropping others until all have.

    Raises:
        DataError: nothing is left.
    """
    users, items = interactions.users, interactions.items
    kept = np.ones(len(users), dtype=bool)
    while True:
        enough = np.bincount(users[kept], minlength=len(interactions.user_ids))[users] >= core
        enough &= np.bincount(items[kept], minlength=len(interactions.item_ids))[items] >= core
        enough &= kept
        if not enough.any():
            raise DataError(f"{interactions.name}: nothing is left after {core}-core filtering")
        if enough.sum() == kept.sum():
            break
        kept = enough
    if kept.all():
        return interactions
    left = interactions.select(kept)
    return left.with_note(
        f"left out: {len(kept) - len(left.users):,} of {len(kept):,} rows by core {core}, with "
        f"{len(interactions.user_ids) - len(left.user_ids):,} of {len(interactions.user_ids):,} users "
        f"and {len(interactions.item_ids) - len(left.item_ids):,} of "
        f"{len(interactions.item_ids):,} items"
    )


def user_order(interactions: Interactions) -> NDArray[np.int64] | None:
    """Return rows (N,) by user, a user's oldest first; None where they lie so.

    Rows of one user keep their order; with times they are sorted by them, stably, so that ties keep
    the order of the file.
    """
    users = interactions.users
    if interactions.times is not None:
        order: NDArray[np.int64] = np.argsort(interactions.times, kind="stable")
        return order[np.argsort(users[order], kind="stable")]
    return np.argsort(users, kind="stable") if np.any(np.diff(users) < 0) else None


def group_by_user(interactions: Interactions) -> Sequences:
    """Sequences from interactions in any order."""
    users, rows = interactions.users, interactions.items + np.int32(1)
    order = user_order(interactions)
    if order is not None:
        rows = rows[order]
    offsets = np.zeros(len(interactions.user_ids) + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=len(interactions.user_ids)), out=offsets[1:])
    vocabulary = Vocabulary(interactions.item_ids)
    return Sequences(rows, offsets, interactions.user_ids, vocabulary, interactions.name)


def leave_one_out(sequences: Sequences) -> Dataset:
    """The last item of every user tests, the one before validates, the rest trains.

    Every prefix of the rest with at least one item is a training sample. Users with two items have a
    test sample only; users with one item have none.

    Raises:
        DataError: nobody has the three items that validation needs, or the four of training.
    """
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    lengths = stops - starts
    test, valid = lengths >= 2, lengths >= 3
    # Training targets are all places but a user's first and last two.
    user_of_row = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    place = np.arange(len(sequences.items), dtype=np.int64)
    train_row = place > starts[user_of_row]
    train_row &= place < stops[user_of_row] - 2
    train_ends = place[train_row]
    train_starts = starts[user_of_row[train_row]]
    if len(train_ends) == 0:
        raise DataError(
            f"{sequences.name}: the longest of {len(lengths)} histories has {lengths.max()} items; "
            "leave-one-out training needs at least 4"
        )

    def split(first: NDArray[np.int64], target: NDArray[np.int64]) -> Split:
        return Split(sequences.items, first, target)

    return Dataset(
        train=split(train_starts, train_ends),
        valid=split(starts[valid], stops[valid] - 2),
        test=split(starts[test], stops[test] - 1),
        vocabulary=sequences.vocabulary,
        name=sequences.name,
        n_users=len(lengths),
        n_interactions=len(sequences.items),
        sequences=sequences,
    )
