"""Say who asks for lists, and of which items: raw ids become rows of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lares.data.dataset import Sequences
from lares.data.ids import as_ids, id_key
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from lares.model.histories import checked_items, elements, rows_of_ids
from lares.names import shown

Rows = NDArray[np.integer[Any]]
_SHOWN_IDS = 3


@dataclass(frozen=True)
class Asked:
    """Hold who asks for a list.

    Attributes:
        users: (U,) what answers call them, an Arrow array.
        items: (N,) rows of the catalogue.
        starts, stops: (U,) int64; user ``u`` has the history ``items[starts[u] : stops[u]]``.
        known: users of the data, if they are asked for; None where histories are given.
    """

    users: pa.Array
    items: Rows
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    known: Vocabulary | None

    def __len__(self) -> int:
        return len(self.users)

    def part(self, first: int, end: int) -> Asked:
        """Return users ``first..end-1`` alone."""
        return replace(
            self,
            users=self.users[first:end],
            starts=self.starts[first:end],
            stops=self.stops[first:end],
        )

    def chosen(self, numbers: NDArray[np.int64]) -> Asked:
        """Return the users of these numbers (n,) alone."""
        return replace(
            self,
            users=self.users.take(pa.array(numbers)),
            starts=self.starts[numbers],
            stops=self.stops[numbers],
        )

    def histories(self) -> list[Rows]:
        """Return the history of each."""
        places = zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        return [self.items[start:stop] for start, stop in places]


class ItemLists(NamedTuple):
    """Hold lists of items, ascending rows: one for all who ask, or one for each.

    Attributes:
        common: of all; None where each has one.
        own: of each, by number among those who ask; None where there is one for all.
    """

    common: Rows | None
    own: Mapping[int, Rows] | None


def listed(name: str, values: Any, wanted: str) -> list[Any]:
    """Return values of a list, or of an array or a column of any library, as plain ones.

    Raises:
        NotAListError: they are no list; the message calls them ``name`` and says what is wanted.
    """
    for plainly in ("to_pylist", "tolist", "to_list"):  # Arrow, NumPy and pandas, polars
        if hasattr(values, plainly):
            values = getattr(values, plainly)()
            break
    return elements(name, values, wanted)


def asked_by_users(users: Any | None, sequences: Sequences) -> Asked:
    """Return users of the data, with their whole histories.

    Args:
        users: raw ids; None is all of them.
        sequences: of the data.

    Raises:
        DataError: one is unknown.
    """
    if users is None:
        return asked_by_places(sequences, None)
    known = Vocabulary(sequences.user_ids)
    wanted = listed("users", users, "user ids")
    places = known.find(wanted) - 1
    unknown = [wanted[place] for place in np.flatnonzero(places < 0)]
    if unknown:
        raise _unknown_users(unknown, known)
    return asked_by_places(sequences, places)


def asked_by_places(sequences: Sequences, places: NDArray[np.int64] | None) -> Asked:
    """Return users (n,) of the data by their places there, from 0; None is all of them."""
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    known, ids = Vocabulary(sequences.user_ids), as_ids(sequences.user_ids)
    if places is None:
        return Asked(ids, sequences.items, starts, stops, known)
    taken = ids.take(pa.array(places))
    return Asked(taken, sequences.items, starts[places], stops[places], known)


def in_rows_of(sequences: Sequences, vocabulary: Vocabulary) -> tuple[Sequences, list[Any]]:
    """Return histories with items in the rows that ``vocabulary`` has for them, without those that it
    does not have, and the raw ids of these."""
    if sequences.vocabulary.equals(vocabulary):
        return sequences, []
    ids = sequences.vocabulary.ids.tolist()
    rows = np.append(0, vocabulary.find(ids)).astype(np.int32)
    unknown = [ids[place] for place in np.flatnonzero(rows[1:] == 0).tolist()]
    items = rows[sequences.items]
    offsets = np.append(0, np.cumsum(items > 0))[sequences.offsets]
    moved = replace(sequences, items=items[items > 0], offsets=offsets, vocabulary=vocabulary)
    return moved, unknown


def asked_by_histories(histories: Any, vocabulary: Vocabulary) -> Asked:
    """Return those whose histories are given: by key, or else by number, counted from 0.

    Args:
        histories: mapping from a user to raw item ids, oldest first, or a list of such.
        vocabulary: of the items.

    Raises:
        DataError: a history is empty, an item is none or unknown, or keys are no ids.
    """
    keys = list(histories) if isinstance(histories, Mapping) else None
    lists = listed("histories", histories, "histories, each a list of item ids")
    if keys is None:
        users = pa.array(range(len(lists)), pa.int64())
    else:
        users = _ids_of("keys of histories", keys)
        lists = [histories[key] for key in keys]
    lists = [_plainly(history) for history in lists]

    def name(number: int) -> str:
        return f"history {number}" if keys is None else f"the history of {shown(keys[number])}"

    rows = rows_of_ids(vocabulary, checked_items(lists, name), name)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(history) for history in rows], out=offsets[1:])
    items = np.concatenate([np.empty(0, np.int64), *map(np.array, rows)]).astype(np.int64)
    return Asked(users, items, offsets[:-1], offsets[1:], None)


def item_lists(
    name: str, items: Any, asked: Asked, vocabulary: Vocabulary, for_all: bool = False
) -> ItemLists:
    """Return the lists that are given: one for all who ask, or a mapping from users to theirs.

    Args:
        name: of the argument, for messages.
        items: raw ids, or a mapping from users to raw ids.
        asked: who asks.
        vocabulary: of the items.
        for_all: whether a mapping must have a list for everybody who asks.

    Raises:
        DataError: an item is unknown, a key of the mapping is no user, or a list is missing.
    """
    if not isinstance(items, Mapping):
        return ItemLists(rows_of_items(name, items, vocabulary), None)
    users = asked.users.to_pylist()
    keys = {user: id_key(user, asked.users.type) for user in items}
    if asked.known is None:
        there = set(users)
        strange = [user for user, key in keys.items() if key not in there]
    else:
        found = asked.known.find(keys)
        strange = [user for user, row in zip(keys, found, strict=True) if not row]
    if strange:
        raise DataError(f"{name} has a list for {_some(strange)}, and there is no such user")
    given = {
        key: rows_of_items(f"{name} of {shown(user)}", items[user], vocabulary)
        for user, key in keys.items()
    }
    lacking = [user for user in users if user not in given] if for_all else []
    if lacking:
        raise DataError(f"{name} has no list for {_some(lacking)}; give one for every user")
    return ItemLists(None, {n: given[user] for n, user in enumerate(users) if user in given})


def rows_of_items(name: str, items: Any, vocabulary: Vocabulary) -> Rows:
    """Return the distinct rows (n,) of raw item ids, ascending.

    Raises:
        DataError: one is unknown; the message calls the list ``name``.
    """
    wanted = listed(name, items, "item ids")
    rows = vocabulary.find(wanted)
    if not rows.all():
        position = int(np.argmin(rows != 0))
        raise DataError(f"{name}, position {position}: {vocabulary.unknown(wanted[position])}")
    return np.unique(rows)


def _plainly(history: Any) -> Any:
    """Return a history as a plain list, or as it is where it is none."""
    return listed("history", history, "") if hasattr(history, "to_pylist") else history


def _ids_of(name: str, values: Sequence[Any]) -> pa.Array:
    try:
        return as_ids(list(values))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _some(ids: Sequence[Any]) -> str:
    """Return the first of some ids, and how many more there are, in words."""
    named, more = ", ".join(map(shown, ids[:_SHOWN_IDS])), len(ids) - _SHOWN_IDS
    return named + f" and {more:,} other{'s' * (more > 1)}" * (more > 0)


def _unknown_users(unknown: list[Any], known: Vocabulary) -> DataError:
    first = known.decode([1])[0]
    many = len(unknown) > 1
    return DataError(
        f"user{'s' * many} {_some(unknown)} {'are' if many else 'is'} unknown: the data have "
        f"{len(known):,} users, such as {first!r}; give histories to recommend for others"
    )
