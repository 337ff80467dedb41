"""The items of a model, ranked and weighed by the rows that histories name them by."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypedDict

from torch import Tensor
from torch.nn import functional

import lares_kernels as lk


class ItemIndex(Protocol):
    """Finds items for :meth:`lares.LaresModel.recommend` in another way than by scoring all of them."""

    def search(self, queries: Tensor, k: int, excluded: Tensor | None) -> Tensor:
        """Ids (B, k) of rows of the catalogue without padding's, best first, -1 where none is left.

        Args:
            queries: (B, d).
            k: items wanted.
            excluded: (B, H) ids that a row leaves out, -1 where there is none.
        """


class Scoring(TypedDict):
    """Tell the catalogue ops of ``lares_kernels`` how to score."""

    scores: str
    temperature: float


class BestItems(NamedTuple):
    """Hold the best items of states.

    Attributes:
        rows: (B, k) int64 rows of the catalogue, best first, 0 where no item is left.
        scores: (B, k) of them, -inf where there is none.
    """

    rows: Tensor
    scores: Tensor


class Catalogue(NamedTuple):
    """Hold all items and how states score them.

    Items are rows ``1..V-1``, as in histories; row 0 is padding's and stands for no item. It never
    ranks, but has its part of probabilities, as published.

    Attributes:
        items: (V, d).
        scores: ``dot`` or ``cosine``.
        temperature: that scores are divided by.
    """

    items: Tensor
    scores: str
    temperature: float

    @property
    def ranked(self) -> Tensor:
        """Return the items without padding's row, (V - 1, d): their ids are one less than rows."""
        return self.items[1:]

    @property
    def scoring(self) -> Scoring:
        """Return the options with which the catalogue ops score so."""
        return {"scores": self.scores, "temperature": self.temperature}

    def top_k(
        self,
        states: Tensor,
        k: int,
        excluded: Tensor | None = None,
        index: ItemIndex | None = None,
    ) -> Tensor:
        """Return the rows (B, k) of the best items, best first, 0 where none is left.

        Args:
            states: (B, d).
            k: items wanted, in ``1..V-1``.
            excluded: (B, H) int64 rows to leave out, 0 where there is none.
            index: finds them instead of exact search.
        """
        if index is not None:
            return index.search(states, k, None if excluded is None else excluded - 1) + 1
        return self.best(states, k, excluded).rows

    def best(self, states: Tensor, k: int, excluded: Tensor | None = None) -> BestItems:
        """Return the best items with their scores; arguments as :meth:`top_k`'s."""
        ids = None if excluded is None else excluded - 1
        found = lk.catalogue_top_k(states, self.ranked, k, excluded=ids, **self.scoring)
        return BestItems(found.ids + 1, found.scores)

    def of_rows(self, rows: Tensor) -> Catalogue:
        """Return a catalogue of some items alone, ``rows`` (n,) of this one, in its rows ``1..n``."""
        # Plain indexing would wait for other threads on the CPU.
        return self._replace(items=self.items.index_select(0, functional.pad(rows, (1, 0))))

    def ranks(self, states: Tensor, targets: Tensor, excluded: Tensor | None = None) -> Tensor:
        """Return the rank (B,) int64 of each target, 0 for the best; -1 where a score is NaN.

        Args:
            states: (B, d).
            targets: (B,) int64 rows in ``1..V-1``.
            excluded: (B, H) int64 rows that do not rank, 0 where there is none. The target ranks even
                if it is among them.
        """
        if excluded is not None:
            excluded = excluded.masked_fill(excluded == targets[:, None], 0) - 1
        return lk.catalogue_ranks(
            states, self.ranked, targets - 1, excluded=excluded, **self.scoring
        )
