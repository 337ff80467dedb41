"""Make what a training step learns from, addressed by the run's seed and the step."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lares.data.split import Split
from lares.data.windows import Windows
from lares.model.config import LaresConfig
from lares.model.packed import PackedHistories
from lares.training.distributed import shard
from lares_kernels.spec.layout import Layout

_SMALLEST_LAST_BATCH = 8  # a last batch below this part of a whole one joins the one before


class Purpose(enum.IntEnum):
    """Name what a step's numbers are drawn for."""

    DEPTHS = 1
    PARTNERS = 2
    MODEL_SEED = 3
    REFERENCE_SEED = 4
    FILTER_SEED = 5


class Place(NamedTuple):
    """A process among those of a run, and its device."""

    rank: int
    n_processes: int
    device: torch.device

    def part(self, size: int) -> tuple[int, int]:
        """First and end of this process's part of ``size`` things."""
        return shard(size, self.rank, self.n_processes)


def generator_of_step(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    """The generator of one purpose in one step of a run."""
    # A list with a seed past 2^63 would become real numbers, and different seeds one.
    key = np.array([seed, int(purpose) << 48 | step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def seed_of_step(seed: int, step: int, purpose: Purpose) -> int:
    """A 63-bit seed for one purpose in one step of a run."""
    return int(generator_of_step(seed, step, purpose).integers(2**63))


def batch_bounds(sizes: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """(batches + 1,) where each batch of an epoch begins and ends.

    Args:
        sizes: (U,) samples in each unit of the epoch, in the epoch's order.
        batch_size: samples with which a batch is full.
    """
    total = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        before = total[bounds[-1] - 1] if bounds[-1] else 0
        full = int(np.searchsorted(total, before + batch_size)) + 1
        bounds.append(min(full, len(sizes)))
    last = total[-1] - (total[bounds[-2] - 1] if bounds[-2] else 0)
    if len(bounds) > 2 and last * _SMALLEST_LAST_BATCH < batch_size:
        del bounds[-2]
    return np.array(bounds, dtype=np.int64)


class ResidentSamples:
    """Samples whose items lie on the training device, where batches are put together.

    Args:
        split: samples.
        config: of the model; longer histories keep their last ``max_length`` items.
        device: of the batches.
    """

    def __init__(self, split: Split, config: LaresConfig, device: torch.device) -> None:
        self._split, self._config, self._device = split, config, device
        self._items = torch.from_numpy(split.items).to(device)

    def collate(
        self, indices: NDArray[np.int64], streams: Tensor
    ) -> tuple[PackedHistories, Tensor]:
        """Return the samples ``indices`` (B,) and their targets (B,).

        What goes to the device is two numbers a sample.

        Args:
            indices: of the samples wanted.
            streams: (B,) int64 that address their draws.
        """
        ends = self._split.ends[indices]
        lengths = np.minimum(ends - self._split.starts[indices], self._config.max_length)
        return self._stretches(ends - lengths, lengths, streams), self.items_at(ends)

    def windows(
        self, windows: Windows, indices: NDArray[np.int64], streams: Tensor
    ) -> PackedHistories:
        """Return the windows ``indices`` (B,), whose draws ``streams`` (B,) address."""
        return self._stretches(windows.starts[indices], windows.lengths[indices], streams)

    def items_at(self, places: NDArray[np.int64]) -> Tensor:
        """Items at ``places`` of the split's flat array, int64."""
        return self._items[torch.from_numpy(places).to(self._device)].long()

    def _stretches(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], streams: Tensor
    ) -> PackedHistories:
        place = torch.from_numpy(np.stack((starts, lengths)).astype(np.int64)).to(self._device)
        size = int(lengths.sum()), int(lengths.max())
        layout = Layout.from_lengths(place[1], streams, size=size)
        items = self._items[place[0][layout.sequence] + layout.position].long()
        return PackedHistories.from_layout(self._config, items, layout)
