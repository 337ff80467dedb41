"""Make the lists, a batch of histories at a time: memory does not grow with users times items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from lares.model.seen import seen_items
from lares.recommender.asked import Asked, ItemLists, Rows

Scores = NDArray[np.floating[Any]]
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
    """

    k: int
    remove_history: bool
    exclude: ItemLists
    only: ItemLists | None
    depth: int | None
    seed: int | None


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

    def best(self, states: Tensor, k: int, left_out: Sequence[Rows]) -> tuple[Rows, Scores]:
        """Return the best items' rows (B, k), 0 where none is left, and scores (B, k).

        Args:
            states: (B, d).
            k: items wanted.
            left_out: rows (n_b,) that the list of each leaves out.
        """
        kind = np.float64 if states.dtype == torch.float64 else np.float32
        rows = np.zeros((len(states), k), dtype=np.int64)
        scores = np.full((len(states), k), -np.inf, kind)
        most = min(k, len(self._catalogue.ranked))
        for chosen, excluded in seen_items(left_out) if most else ():
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


def ranked(model: LaresModel, vocabulary: Vocabulary, asked: Asked, how: How) -> Iterator[pa.Table]:
    """Give the lists of all who ask, batch by batch.

    Args:
        model: that ranks.
        vocabulary: of its items.
        asked: who asks.
        how: the lists are made.

    Yields:
        Tables, at least one, with columns user, item, score and rank, which is 1 for the best. A list
        is shorter than ``k`` where fewer items are left.
    """
    catalogue = model.catalogue
    common = Candidates(catalogue, _common_rows(model, how))
    if not len(asked):
        nothing = np.empty((0, how.k))
        yield lists_table({"user": asked.users}, vocabulary, nothing.astype(np.int64), nothing)
    for first in range(0, len(asked), BATCH):
        end = min(first + BATCH, len(asked))
        histories = asked.histories(first, end)
        states = model.states_of_rows(histories, how.depth, how.seed)
        left_out = [
            _left_out(history, first + number, how) for number, history in enumerate(histories)
        ]
        if how.only is None or how.only.own is None:
            rows, scores = common.best(states, how.k, left_out)
        else:
            of_each = [
                Candidates(catalogue, how.only.own[first + n]).best(
                    states[n : n + 1], how.k, left_out[n : n + 1]
                )
                for n in range(end - first)
            ]
            rows, scores = map(np.concatenate, zip(*of_each, strict=True))
        yield lists_table({"user": asked.users[first:end]}, vocabulary, rows, scores)


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
    whose: Mapping[str, pa.Array], vocabulary: Vocabulary, rows: Rows, scores: Scores
) -> pa.Table:
    """Return lists as a table, an item a line.

    Args:
        whose: columns (B,) that say whose each list is, by name.
        vocabulary: of the items.
        rows: (B, k) of it, best first; where there is 0 the table has no line.
        scores: (B, k).
    """
    there = rows > 0
    numbers, places = np.nonzero(there)
    lists = pa.array(numbers)
    return pa.table(
        {
            **{name: column.take(lists) for name, column in whose.items()},
            "item": vocabulary.take(rows[there]),
            "score": pa.array(scores[there]),
            "rank": pa.array((places + 1).astype(np.int32)),
        }
    )


def _tensor(numbers: Rows, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)).to(device)
