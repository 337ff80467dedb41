"""Statistics of data: how long histories are, how popular items, how often users come back to one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lares.data.dataset import Dataset

_RARE = 5  # interactions; an item with fewer is rare
_QUANTILES = (10, 25, 50, 75, 90, 99)  # per cent of users


class Statistics(NamedTuple):
    """Statistics of whole histories, held-out items included, of users with two items or more.

    Attributes:
        lengths: (U,) items of each history.
        counts: (V - 1,) interactions with each item, the most first.
        repeated: share of interactions with an item that the user had before.
        consecutive: share of those with the item that was the user's just before.
        unseen: share of test targets that training never meets.
    """

    lengths: NDArray[np.int64]
    counts: NDArray[np.int64]
    repeated: float
    consecutive: float
    unseen: float

    def share_of_top(self, share: float) -> float:
        """Return the share of interactions that the most popular ``share`` of items has."""
        n = max(1, round(share * len(self.counts)))
        return float(self.counts[:n].sum() / self.counts.sum())

    def gini(self) -> float:
        """Return the Gini coefficient of popularity: 0 if all items are alike, 1 if one has all."""
        n = len(self.counts)
        ranks = np.arange(n, 0, -1)  # the least popular is first
        return float(2 * (ranks * self.counts).sum() / (n * self.counts.sum()) - (n + 1) / n)

    def rows(self) -> dict[str, str]:
        """Return what to say of them, by subject."""
        quantiles = np.percentile(self.lengths, _QUANTILES)
        rare = int((self.counts < _RARE).sum())
        return {
            "history length": f"mean {np.mean(self.lengths):.1f}, median "
            f"{np.median(self.lengths):.0f}, longest {self.lengths.max()}",
            "length quantiles": ", ".join(
                f"{share}% up to {length:.0f}"
                for share, length in zip(_QUANTILES, quantiles, strict=True)
            ),
            "popularity": f"1% of the items have {self.share_of_top(0.01):.1%} of the interactions, "
            f"10% have {self.share_of_top(0.1):.1%}; Gini {self.gini():.2f}",
            "rare items": f"{rare:,} ({rare / len(self.counts):.1%}) with fewer than {_RARE} "
            "interactions",
            "repeats": f"{self.repeated:.1%} of the interactions are with an item that the user had "
            f"before, {self.consecutive:.1%} with the one just before",
            "unseen targets": f"{self.unseen:.1%} of the test targets are items that training never "
            "meets",
        }


def statistics_of(dataset: Dataset) -> Statistics:
    """Return the statistics of data."""
    test = dataset.test
    lengths = test.ends - test.starts + 1
    # Places of whole histories, one after the other.
    before = np.cumsum(lengths) - lengths
    places = np.repeat(test.starts - before, lengths) + np.arange(int(lengths.sum()))
    items = test.items[places].astype(np.int64)
    users = np.repeat(np.arange(len(lengths)), lengths)
    again = (users[1:] == users[:-1]) & (items[1:] == items[:-1])
    n_pairs = len(np.unique(users * dataset.vocabulary.n_items + items))
    counts = np.bincount(items, minlength=dataset.vocabulary.n_items)[1:]
    return Statistics(
        lengths=lengths,
        counts=np.sort(counts)[::-1],
        repeated=1 - n_pairs / len(items),
        consecutive=float(again.sum()) / len(items),
        unseen=float((dataset.item_counts()[test.targets] == 0).mean()),
    )
