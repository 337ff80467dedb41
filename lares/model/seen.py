"""Items that rankings leave out, as matrices that no long history makes huge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lares.data.batches import places_of

_MOST_CELLS = 1 << 22  # of a matrix: 32 MiB
_LONG = 1024  # of a longer history each item is listed once


def seen_items(
    histories: Sequence[Any],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give histories' items as padded matrices, each of some of the histories.

    A matrix has a column for each item of its longest history, so one very long history would make
    that of a batch huge; then the histories are taken in several matrices, by length.

    Args:
        histories: (H_i,) rows of the catalogue each, lists or arrays.

    Yields:
        (n,) numbers of the histories in a matrix; (n, E) int64 their items, 0 where there is none.
    """
    sets = [np.asarray(items, dtype=np.int64) for items in histories]
    sets = [np.unique(items) if len(items) > _LONG else items for items in sets]
    sizes = np.array([len(items) for items in sets], dtype=np.int64)
    for rows in _groups(sizes):
        matrix = np.zeros((len(rows), int(sizes[rows].max())), dtype=np.int64)
        for place, row in enumerate(rows.tolist()):
            matrix[place, : sizes[row]] = sets[row]
        yield rows, matrix


def seen_in_spans(
    items: NDArray[np.integer[Any]], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Do as :func:`seen_items` for histories ``items[starts[b] : stops[b]]``, without a look at each
    where none is long."""
    sizes = stops - starts
    longest = int(sizes.max(initial=0))
    if longest > _LONG or len(sizes) * longest > _MOST_CELLS:
        spans = zip(starts.tolist(), stops.tolist(), strict=True)
        yield from seen_items([items[start:stop] for start, stop in spans])
    elif len(sizes):
        matrix = np.zeros((len(sizes), longest), dtype=np.int64)
        matrix[np.arange(longest) < sizes[:, None]] = items[places_of(starts, stops)]
        yield np.arange(len(sizes)), matrix


def _groups(sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Give the numbers of rows of such sizes (B,) in groups whose matrices are small enough, or have
    one row."""
    if len(sizes) * int(sizes.max(initial=0)) <= _MOST_CELLS:
        if len(sizes):
            yield np.arange(len(sizes))
        return
    order = np.argsort(sizes, kind="stable")
    first = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - first) * sizes[order[end]] > _MOST_CELLS:
            yield order[first:end]
            first = end
