"""Same-target partners for trajectory-level alignment (arXiv 2505.16865, section 3.3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lares.data.split import Split


class PartnerIndex:
    """Samples sorted by target, so that a partner is one draw in a range.

    Args:
        split: samples to find partners among. Sorting takes O(S log S) once; a draw takes O(1).
    """

    def __init__(self, split: Split) -> None:
        targets = split.targets
        self._by_target = np.argsort(targets, kind="stable").astype(np.int32)
        self._place = np.empty(len(targets), dtype=np.int32)
        self._place[self._by_target] = np.arange(len(targets), dtype=np.int32)
        self._first = np.zeros(int(targets.max()) + 2, dtype=np.int64)
        np.cumsum(np.bincount(targets), out=self._first[1:])
        self._targets = targets

    def draw(self, indices: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """(B,) partners of samples (B,): uniform among the *others* with the same target, the sample
        itself where there is none."""
        targets = self._targets[indices]
        first = self._first[targets]
        others = self._first[targets + 1] - first - 1
        # Among the n - 1 others: those from the sample's own place on move up by one.
        drawn = np.floor(generator.random(len(indices)) * others).astype(np.int64)
        drawn = np.minimum(drawn, np.maximum(others - 1, 0))
        own = self._place[indices] - first
        drawn += (drawn >= own) & (others > 0)
        partners: NDArray[np.int64] = self._by_target[first + drawn].astype(np.int64)
        return partners
