"""Items by how often training meets them: as a baseline, and to tell rare targets from popular ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lares.data.dataset import Dataset
from lares.data.split import Split
from lares.evaluation.ranking import DEFAULT_KS, metrics_from_ranks

_MOST_ITEMS = 1 << 22  # of the histories that are looked at together


def evaluate_popularity(
    dataset: Dataset, split: Split, ks: Sequence[int] = DEFAULT_KS, *, remove_history: bool = False
) -> dict[str, float]:
    """Recall and NDCG of ranking the catalogue by training counts (ties against the target)."""
    counts = dataset.item_counts()
    targets = split.targets
    # How many items have at least the target's count, itself not counted.
    ordered = np.sort(counts[1:])
    ranks = len(ordered) - np.searchsorted(ordered, counts[targets]) - 1
    if remove_history:
        for first, end in _batches_by_size(split.ends - split.starts):
            ranks[first:end] -= _seen_before(
                counts, Split(split.items, split.starts[first:end], split.ends[first:end])
            )
    return metrics_from_ranks(torch.from_numpy(ranks), ks)


def _seen_before(counts: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Return (S,) how many items of each sample's history rank before its target."""
    lengths = split.ends - split.starts
    sample = np.repeat(np.arange(len(split)), lengths)
    place = np.arange(len(sample)) + np.repeat(split.starts - np.cumsum(lengths) + lengths, lengths)
    targets = split.targets.astype(np.int64)
    # Each item of a history once.
    sample, item = np.divmod(np.unique(sample * len(counts) + split.items[place]), len(counts))
    target = targets[sample]
    before = (counts[item] >= counts[target]) & (item != target) & (item != 0)
    return np.bincount(sample[before], minlength=len(split))


def _batches_by_size(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Give first and end of stretches of samples of such sizes (S,) that hold so much together, or
    one sample."""
    total = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = total[first - 1] if first else 0
        end = max(first + 1, int(np.searchsorted(total, before + _MOST_ITEMS, side="right")))
        yield first, end
        first = end


def popularity_tenths(dataset: Dataset, split: Split) -> NDArray[np.int64]:
    """Tenth of the samples that each is in, by how often training meets its target: (S,) in 0..9.

    0 has the rarest targets. Samples whose targets are equally popular share a tenth: the one in which
    the first of them would be.
    """
    counts = dataset.item_counts()[split.items[split.ends]]
    rarer: NDArray[np.int64] = np.searchsorted(np.sort(counts), counts)
    return rarer * 10 // len(counts)
