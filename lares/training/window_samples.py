"""Windows of whole histories as what a step learns from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lares.data.split import Split
from lares.data.windows import cut_windows
from lares.errors import ConfigError
from lares.model.config import LaresConfig
from lares.model.packed import PackedHistories
from lares.training.steps import Place, ResidentSamples


class WindowPart(NamedTuple):
    """A process's part of a step's windows, ``W`` with ``P`` targets.

    Attributes:
        windows: that draw by their numbers among the step's windows.
        rows: (P,) row of each target's prefix among the packed items; targets: (P,) item ids.
        first, end: where the part's targets begin and end among those of all processes.
        samples: numbers of the samples that the targets of all processes are.
    """

    windows: PackedHistories
    rows: Tensor
    targets: Tensor
    first: int
    end: int
    samples: NDArray[np.int64]


class WindowSamples:
    """Every prefix of every history, in windows whose items lie on the training device.

    Args:
        split: every prefix, as ``leave_one_out`` makes it.
        config: of the model, whose ``max_length`` a window has at most.
        overlap: items of context that later windows of a long history see; None is half a window.
        place: of this process.
        kept: (S,) bool, samples to learn from; None is all of them.
    """

    def __init__(
        self,
        split: Split,
        config: LaresConfig,
        overlap: int | None,
        place: Place,
        kept: NDArray[np.bool_] | None = None,
    ) -> None:
        longest = config.max_length
        self._windows = cut_windows(split, longest, longest // 2 if overlap is None else overlap)
        self._place, self._kept = place, kept
        self.resident = ResidentSamples(split, config, place.device)
        self._split = split
        self._used = np.arange(len(self._windows))  # windows with anything to learn
        self.sizes = self._windows.sizes
        if kept is not None:
            before = np.concatenate(([0], np.cumsum(kept)))
            firsts = self._windows.first_sample
            sizes = before[firsts + self._windows.sizes] - before[firsts]
            self._used = np.flatnonzero(sizes)
            self.sizes = sizes[self._used]

    def part(self, indices: NDArray[np.int64]) -> WindowPart:
        """This process's part of the windows ``indices`` (B,) of all."""
        place = self._place
        if len(indices) < place.n_processes:
            raise ConfigError(
                f"a step of {len(indices)} histories cannot be shared by {place.n_processes} "
                "processes; raise optimizer.batch_size"
            )
        indices = self._used[indices]
        first, end = place.part(len(indices))
        before, own = (self._positions(part) for part in (indices[:first], indices[first:end]))
        after = self._positions(indices[end:])
        numbers = torch.arange(first, end, device=place.device)
        return WindowPart(
            windows=self.resident.windows(self._windows, indices[first:end], numbers),
            rows=torch.from_numpy(own[0]).to(place.device),
            targets=self.resident.items_at(own[1]),
            first=len(before[0]),
            end=len(before[0]) + len(own[0]),
            samples=np.concatenate((before[2], own[2], after[2])),
        )

    def _positions(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        found = self._windows.positions(windows)
        if self._kept is None:
            return found
        kept = self._kept[found.samples]
        return tuple(values[kept] for values in found)
