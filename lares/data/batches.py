"""Batches made on the fly from samples, and the order they are drawn in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lares.data.split import Split

_ORDER_STREAM = 0x6F72646572  # keeps the order's draws apart from every other use of the seed


def epoch_order(n_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(n_samples,) permutation of an epoch, the same for the same seed and epoch."""
    key = np.array([seed, _ORDER_STREAM + epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(n_samples)


def places_of(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all places (N,) of the spans ``starts[b]..stops[b] - 1``, one span after the other."""
    sizes = stops - starts
    places: NDArray[np.int64] = np.repeat(stops - np.cumsum(sizes), sizes) + np.arange(sizes.sum())
    return places


def pack(
    split: Split, indices: NDArray[np.int64], max_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a batch of samples, the items of one after those of the other.

    Args:
        split: samples.
        indices: (B,) of the samples wanted.
        max_length: longer histories keep their last ``max_length`` items.

    Returns:
        items (N,) int64; lengths (B,) int64; targets (B,) int64.
    """
    ends = split.ends[indices]
    lengths = np.minimum(ends - split.starts[indices], max_length)
    places = places_of(ends - lengths, ends)
    return split.items[places].astype(np.int64), lengths, split.items[ends].astype(np.int64)


def collate(
    split: Split, indices: NDArray[np.int64], max_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a batch as :func:`pack` does, padded.

    Returns:
        item_seq (B, longest history of the batch) int64, right padded with 0; lengths (B,) int64;
        targets (B,) int64.
    """
    items, lengths, targets = pack(split, indices, max_length)
    item_seq = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
    item_seq[np.arange(item_seq.shape[1]) < lengths[:, None]] = items
    return item_seq, lengths, targets
