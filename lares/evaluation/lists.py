"""Count what lists of the best items hold: how much of the catalogue, how much of users' histories."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lares.metrics import ERROR
from lares.model.model import LaresModel
from lares.plain import whole


class ListStatistics:
    """Adds up what lists of several lengths hold, batch by batch; memory does not grow with samples.

    Args:
        n_items: items of the catalogue, V - 1.
        ks: lengths of the lists.
    """

    def __init__(self, n_items: int, ks: Sequence[int]) -> None:
        self._ks = [whole("k", k, 1) for k in ks]
        self._longest = min(max(self._ks), n_items)
        self._n_items, self._n_lists = n_items, 0
        # The shortest of the lists that each row is in; row 0 is no item.
        self._needs = torch.full((n_items + 1,), self._longest + 1, dtype=torch.int64)
        self._sums = dict.fromkeys(self._ks, 0.0)
        self._squares = dict.fromkeys(self._ks, 0.0)

    def add(
        self, model: LaresModel, states: Tensor, histories: Tensor, excluded: Tensor | None
    ) -> None:
        """Count the lists of some samples.

        Args:
            model: whose catalogue it is.
            states: (n, d).
            histories: (n, H) int64 rows of the samples' whole histories, 0 where there is none.
            excluded: (n, E) int64 rows that are in no list, 0 where there is none.
        """
        best = model.catalogue.top_k(states, self._longest, excluded)
        place = torch.arange(1, self._longest + 1).expand(best.shape)
        rows = best.cpu()
        self._needs.scatter_reduce_(0, rows.flatten(), place.flatten(), "amin")
        known = histories.sort(dim=1).values
        found = torch.searchsorted(known, best).clamp_(max=known.shape[1] - 1)
        repeated = ((known.gather(1, found) == best) & (best > 0)).cpu().double()
        listed = (rows > 0).double()
        self._n_lists += len(rows)
        for k in self._ks:
            # A list is shorter where fewer items are left.
            shares = repeated[:, :k].sum(1) / listed[:, :k].sum(1).clamp(min=1)
            self._sums[k] += float(shares.sum())
            self._squares[k] += float(shares.square().sum())

    def found(self, metrics: Collection[str], errors: bool) -> dict[str, float]:
        """Return ``coverage@k`` and ``repeats@k`` at every length, as far as they are asked for."""
        found: dict[str, float] = {}
        for k in self._ks:
            if "coverage" in metrics:
                found[f"coverage@{k}"] = int((self._needs[1:] <= k).sum()) / self._n_items
            if "repeats" in metrics:
                n = max(self._n_lists, 1)
                mean = found[f"repeats@{k}"] = self._sums[k] / n
                if errors:
                    scatter = max(self._squares[k] - n * mean * mean, 0.0)
                    found[f"repeats@{k}{ERROR}"] = (scatter / (n - 1) / n) ** 0.5 if n > 1 else 0.0
        return found
