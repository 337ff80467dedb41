"""Items by how often training meets them: as a baseline, and to tell rare targets from popular ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lares.data.batches import collate
from lares.data.dataset import Dataset, Split
from lares.evaluation.ranking import DEFAULT_KS, metrics_from_ranks, target_ranks

_BATCH = 1024


def evaluate_popularity(
    dataset: Dataset, split: Split, ks: Sequence[int] = DEFAULT_KS, *, remove_history: bool = False
) -> dict[str, float]:
    """Recall and NDCG of ranking the catalogue by training counts (ties against the target)."""
    counts = torch.from_numpy(dataset.item_counts()).double()
    longest = int((split.ends - split.starts).max()) if remove_history else 1
    ranks = []
    for first in range(0, len(split), _BATCH):
        indices = np.arange(first, min(first + _BATCH, len(split)))
        histories, _, targets = collate(split, indices, longest)
        excluded = torch.from_numpy(histories) if remove_history else None
        scores = counts.expand(len(indices), -1)
        ranks.append(target_ranks(scores, torch.from_numpy(targets), excluded))
    return metrics_from_ranks(torch.cat(ranks), ks)


def popularity_tenths(dataset: Dataset, split: Split) -> NDArray[np.int64]:
    """Tenth of the samples that each is in, by how often training meets its target: (S,) in 0..9.

    0 has the rarest targets. Samples whose targets are equally popular share a tenth: the one in which
    the first of them would be.
    """
    counts = dataset.item_counts()[split.items[split.ends]]
    rarer: NDArray[np.int64] = np.searchsorted(np.sort(counts), counts)
    return rarer * 10 // len(counts)
