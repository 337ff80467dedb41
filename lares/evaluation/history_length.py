"""Samples by how long their history is, to tell short ones from long ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lares.data.split import Split


def length_groups(split: Split) -> NDArray[np.int64]:
    """Group of the samples that each is in, by the length of its whole history: (S,).

    Group 0 has histories of one item, and group ``g`` those of ``2^(g-1) + 1 .. 2^g``: 2, 3 to 4, 5 to
    8 and so on, the same groups in any data.
    """
    lengths = split.ends - split.starts
    # The number of bits of length - 1, which is exact.
    groups: NDArray[np.int64] = np.frexp((lengths - 1).astype(np.float64))[1].astype(np.int64)
    return groups


def lengths_of_group(group: int) -> tuple[int, int]:
    """Return the shortest and the longest history that a group of :func:`length_groups` may have."""
    return (1, 1) if group == 0 else (2 ** (group - 1) + 1, 2**group)
