"""Make the lists, a batch of histories at a time: memory does not grow with users times items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lares.data.vocabulary import Vocabulary
from lares.model.catalogue import Catalogue
from lares.model.model import LaresModel
from lares.model.seen import seen_in_spans, seen_items
from lares.recommender.asked import Asked, ItemLists, Rows

Scores = NDArray[np.floating[Any]]
# Of some users of a batch: their numbers (n,), and rows (n, E) that their lists leave out, 0 for none.
LeftOut = Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]
BATCH = 256  # histories
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class How:
    """Say how lists are made.

    Attributes:
        k: items of each.
        remove_history: leave out the items of the whole history.
        exclude, only: items that are left out, and those that may be listed.
        depth, seed: as of :meth:`lares.LaresModel.recommend`.
        emptied: rows of the list of a user without a history, best first; its scores are null.
        titles: (V - 1,) text for every item, a column of its own; None is none.
    """

    k: int
    remove_history: bool
    exclude: ItemLists
    only: ItemLists | None
    depth: int | None
    seed: int | None
    emptied: Rows | None = None
    titles: pa.Array | None = None


class Candidates:
    """Hold the items that may be listed, a catalogue of their own.

    Args:
        catalogue: of the model.
        rows: (n,) of it, ascending; None is all.
    """

    def __init__(self, catalogue: Catalogue, rows: Rows | None) -> None:
        self._rows, self._catalogue = rows, catalogue
        if rows is not None:
            self._catalogue = catalogue.of_rows(_tensor(rows, catalogue.items.device))

    def best(self, states: Tensor, k: int, left_out: LeftOut) -> tuple[Rows, Scores]:
        """Return the best items' rows (B, k), 0 where none is left, and scores (B, k).

        Args:
            states: (B, d).
            k: items wanted.
            left_out: by every list.
        """
        kind = np.float64 if states.dtype == torch.float64 else np.float32
        rows = np.zeros((len(states), k), dtype=np.int64)
        scores = np.full((len(states), k), -np.inf, kind)
        most = min(k, len(self._catalogue.ranked))
        for chosen, excluded in left_out if most else ():
            found = self._catalogue.best(
                states.index_select(0, _tensor(chosen, states.device)),
                most,
                _tensor(self._places(excluded), states.device),
            )
            rows[chosen, :most] = self._from_places(found.rows.cpu().numpy())
            scores[chosen, :most] = found.scores.double().cpu().numpy()
        return rows, scores

    def _places(self, rows: Rows) -> Rows:
        """Return where rows are among the candidates, counted from 1; 0 for those that are none."""
        if self._rows is None:
            return rows
        places = np.searchsorted(self._rows, rows)
        places = np.minimum(places, len(self._rows) - 1)
        return np.where(self._rows[places] == rows, places + 1, 0)

    def _from_places(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return places if self._rows is None else np.append(0, self._rows)[places]


class ListMaker:
    """Makes lists by one model in one way.

    Args:
        model: that ranks.
        vocabulary: of its items.
        how: the lists are made.
    """

    def __init__(self, model: LaresModel, vocabulary: Vocabulary, how: How) -> None:
        self.model, self.vocabulary, self.how = model, vocabulary, how
        self._common = Candidates(model.catalogue, _common_rows(model, how))

    def tables(self, asked: Asked, number: int = 0) -> Iterator[pa.Table]:
        """Give the lists of all who ask, batch by batch.

        Args:
            asked: who asks.
            number: of the first of them among those whom ``how`` has lists of their own for.

        Yields:
            Tables, at least one, with columns user, item, score and rank, which is 1 for the best. A
            list is shorter than ``k`` where fewer items are left.
        """
        for first in range(0, max(len(asked), 1), BATCH):
            part = asked.part(first, min(first + BATCH, len(asked)))
            rows, scores = _best(self.model, self._common, part, self.how, number + first)
            whose = {"user": part.users}
            yield lists_table(whose, self.vocabulary, rows, scores, self.how.titles)


def _best(
    model: LaresModel, common: Candidates, asked: Asked, how: How, first: int
) -> tuple[Rows, Scores]:
    """Return the rows (B, k) of a batch's lists, 0 where there is none, and their scores.

    Args:
        model: that ranks.
        common: items that may be in anybody's list.
        asked: the batch.
        how: the lists are made.
        first: number of its first user among all who ask.
    """
    kind = np.float64 if model.items.dtype == torch.float64 else np.float32
    rows = np.zeros((len(asked), how.k), dtype=np.int64)
    scores = np.full((len(asked), how.k), np.nan, kind)
    if how.emptied is not None:
        rows[:, : len(how.emptied)] = how.emptied[: how.k]
    served = np.flatnonzero(asked.stops > asked.starts)
    if not len(served):
        return rows, scores
    some = asked if len(served) == len(asked) else asked.chosen(served)
    states = model.states_of_spans(some.items, some.starts, some.stops, how.depth, how.seed)
    if how.exclude.own is None and (how.only is None or how.only.own is None):
        found = common.best(states, how.k, _seen(some, how))
    else:
        found = _best_of_own(model.catalogue, common, states, some, how, served + first)
    rows[served], scores[served] = found
    return rows, scores


def _seen(asked: Asked, how: How) -> LeftOut:
    if how.remove_history:
        return seen_in_spans(asked.items, asked.starts, asked.stops)
    return [(np.arange(len(asked)), np.empty((len(asked), 0), dtype=np.int64))]


def _best_of_own(
    catalogue: Catalogue,
    common: Candidates,
    states: Tensor,
    asked: Asked,
    how: How,
    numbers: NDArray[np.int64],
) -> tuple[Rows, Scores]:
    """Return what :func:`_best` does where users have lists of their own, known by their numbers."""
    left_out = [
        _left_out(history, number, how)
        for history, number in zip(asked.histories(), numbers.tolist(), strict=True)
    ]
    if how.only is None or how.only.own is None:
        return common.best(states, how.k, seen_items(left_out))
    of_each = [
        Candidates(catalogue, how.only.own[number]).best(
            states[n : n + 1], how.k, seen_items(left_out[n : n + 1])
        )
        for n, number in enumerate(numbers.tolist())
    ]
    rows, scores = map(np.concatenate, zip(*of_each, strict=True))
    return rows, scores


def _common_rows(model: LaresModel, how: How) -> Rows | None:
    """Return the rows that may be in anybody's list; None for all."""
    only = None if how.only is None else how.only.common
    excluded = how.exclude.common
    if only is None and (excluded is None or not len(excluded)):
        return None
    allowed = np.arange(1, model.config.n_items) if only is None else only
    return allowed if excluded is None else np.setdiff1d(allowed, excluded)


def _left_out(history: Rows, number: int, how: How) -> Rows:
    """Return the rows that a user's own list leaves out."""
    seen = history if how.remove_history else _NONE
    parts = [seen]
    if how.exclude.own is not None and number in how.exclude.own:
        parts.append(how.exclude.own[number])
    if how.exclude.common is not None and how.only is not None and how.only.own is not None:
        parts.append(how.exclude.common)
    return np.concatenate(parts) if len(parts) > 1 else seen


def lists_table(
    whose: Mapping[str, pa.Array],
    vocabulary: Vocabulary,
    rows: Rows,
    scores: Scores,
    titles: pa.Array | None = None,
) -> pa.Table:
    """Return lists as a table, an item a line.

    Args:
        whose: columns (B,) that say whose each list is, by name.
        vocabulary: of the items.
        rows: (B, k) of it, best first; where there is 0 the table has no line.
        scores: (B, k), NaN where there is none: null in the table.
        titles: (V - 1,) of items, the last column; None is none.
    """
    there = rows > 0
    numbers, places = np.nonzero(there)
    lists, listed = pa.array(numbers), rows[there]
    columns = {
        **{name: column.take(lists) for name, column in whose.items()},
        "item": vocabulary.take(listed),
        "score": pa.array(scores[there], from_pandas=True),
        "rank": pa.array((places + 1).astype(np.int32)),
    }
    if titles is not None:
        columns["title"] = titles.take(pa.array(listed - 1))
    return pa.table(columns)


def _tensor(numbers: Rows, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)).to(device)
