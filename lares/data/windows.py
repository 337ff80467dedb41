"""Stretches of users' histories in which every position predicts its next item.

With a causal mask one pass over a history computes what a pass over each of its prefixes would. A
history longer than the model's window is cut into several windows; each target is trained in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lares.data.split import Split
from lares.errors import ConfigError, DataError


class Positions(NamedTuple):
    """The trained positions of some windows, window after window; ``P`` of them.

    Attributes:
        rows: (P,) packed row of each, where the windows' items lie one window after the other.
        targets: (P,) place of each target in the split's items.
        samples: (P,) number of the sample of the split that the position is.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    samples: NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """``W`` windows.

    Attributes:
        starts: (W,) int64 place of the first item in the split's items.
        lengths: (W,) int64 items.
        first_trained: (W,) int64 first position that is trained; those before it are context.
        first_sample: (W,) int64 sample of the split that this position is.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    first_trained: NDArray[np.int64]
    first_sample: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(W,) trained positions of each."""
        return self.lengths - self.first_trained

    def positions(self, indices: NDArray[np.int64]) -> Positions:
        """Trained positions of the windows ``indices`` (B,)."""
        lengths, sizes = self.lengths[indices], self.sizes[indices]
        owner = np.repeat(np.arange(len(indices)), sizes)
        within = np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]
        position = self.first_trained[indices][owner] + within
        return Positions(
            rows=(np.cumsum(lengths) - lengths)[owner] + position,
            targets=self.starts[indices][owner] + position + 1,
            samples=self.first_sample[indices][owner] + within,
        )


def cut_windows(split: Split, max_length: int, overlap: int) -> Windows:
    """Windows of up to ``max_length`` items that train every sample of ``split`` once.

    A history that fits is one window, in which each position sees what its prefix alone would. Of a
    longer one the last window ends with it, as a prefix's would; each window before ends
    ``max_length - overlap`` items earlier, and trains what is left of its targets.

    Args:
        split: every prefix of every history, users one after the other, as ``leave_one_out`` makes it.
        max_length: most items of a window.
        overlap: items of context, at least, that targets beyond a history's first window see.

    Raises:
        ConfigError: ``overlap`` is not in ``0 .. max_length - 1``.
        DataError: the split does not hold every prefix.
    """
    if not 0 <= overlap < max_length:
        raise ConfigError(
            f"sampling.overlap is {overlap}; it must be in 0..{max_length - 1}, below the window of "
            f"{max_length} items"
        )
    first = np.flatnonzero(np.diff(split.starts, prepend=-1))  # sample of each history
    counts = np.diff(first, append=len(split))
    begins = split.starts[first]
    whole = np.repeat(begins - first, counts) + np.arange(len(split)) + 1
    if not np.array_equal(split.ends, whole):
        raise DataError("windows need every prefix of every history as a sample, in order")
    stride = max_length - overlap
    more = -(-np.maximum(counts - max_length, 0) // stride)  # windows beyond a history's first
    user = np.repeat(np.arange(len(first)), more + 1)
    number = np.arange(len(user)) - (np.cumsum(more + 1) - (more + 1))[user]
    ends = counts[user] - (more[user] - number) * stride  # of the window, in items of the history
    lengths = np.minimum(ends, max_length)
    first_trained = np.where(number == 0, 0, lengths - stride)
    offsets = ends - lengths
    return Windows(
        starts=begins[user] + offsets,
        lengths=lengths,
        first_trained=first_trained,
        first_sample=first[user] + offsets + first_trained,
    )
