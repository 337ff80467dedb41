"""Samples to train or to evaluate on.

A sample is never written out: it is two numbers that say where in one flat array of items its history
begins and where its target stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Samples as places in a flat array.

    Attributes:
        items: (N,) int32 catalogue rows.
        starts, ends: (S,) int64; sample ``i`` has history ``items[starts[i] : ends[i]]`` (at least one
            item) and target ``items[ends[i]]``.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def targets(self) -> NDArray[np.int32]:
        """(S,) target of every sample."""
        targets: NDArray[np.int32] = self.items[self.ends]
        return targets
