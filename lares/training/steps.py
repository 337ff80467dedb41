"""One training step's batch and its random draws, all addressed by the run's seed and the step."""

from __future__ import annotations

import enum

import numpy as np
import torch
from numpy.typing import NDArray

from lares.config import LaresConfig
from lares.data.batches import collate
from lares.data.dataset import Split
from lares.data.partners import PartnerIndex
from lares.objectives.spt import SptBatch, SptConfig, SptDepths, draw_depths
from lares.training.distributed import shard

_SMALLEST_LAST_BATCH = 8  # a last batch below this part of a whole one joins the one before


class Purpose(enum.IntEnum):
    """What a step's numbers are drawn for."""

    DEPTHS = 1
    PARTNERS = 2
    MODEL_SEED = 3


def generator_of_step(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    """The generator of one purpose in one step of a run."""
    return np.random.Generator(np.random.Philox(key=[seed, int(purpose) << 48 | step]))


def batch_bounds(n_samples: int, batch_size: int) -> NDArray[np.int64]:
    """(batches + 1,) where each batch of an epoch begins and ends."""
    bounds = list(range(0, n_samples, batch_size))
    if len(bounds) > 1 and (n_samples - bounds[-1]) * _SMALLEST_LAST_BATCH < batch_size:
        bounds.pop()
    return np.array([*bounds, n_samples], dtype=np.int64)


class StepMaker:
    """Makes the batch, depths and model seed of every step, for one process of several.

    Args:
        split: training samples.
        model, spt: configurations.
        seed: of the run.
        rank, n_processes: each process takes its contiguous part of every batch.
        device: of the tensors made.
    """

    def __init__(
        self,
        split: Split,
        model: LaresConfig,
        spt: SptConfig,
        seed: int,
        rank: int,
        n_processes: int,
        device: torch.device,
    ) -> None:
        self._split, self._model, self._spt, self._seed = split, model, spt, seed
        self._rank, self._n_processes, self._device = rank, n_processes, device
        self._partners = PartnerIndex(split) if spt.aligns else None

    def make(self, indices: NDArray[np.int64], step: int) -> tuple[SptBatch, SptDepths, int]:
        """(batch of this process, depths, model seed) of the samples ``indices`` (B,) of all."""
        first, end = shard(len(indices), self._rank, self._n_processes)
        depths = draw_depths(
            self._model, self._spt, generator_of_step(self._seed, step, Purpose.DEPTHS)
        )
        model_seed = int(generator_of_step(self._seed, step, Purpose.MODEL_SEED).integers(2**63))
        item_seq, lengths, targets = self._collate(indices[first:end])
        partner_seq = partner_lengths = None
        if self._partners is not None:
            generator = generator_of_step(self._seed, step, Purpose.PARTNERS)
            # Drawn for the whole batch, so that any number of processes draws the same.
            partners = self._partners.draw(indices, generator)
            partner_seq, partner_lengths, _ = self._collate(partners[first:end])
        batch = SptBatch(
            item_seq=item_seq,
            lengths=lengths,
            targets=targets,
            partner_seq=partner_seq,
            partner_lengths=partner_lengths,
            sequence_ids=torch.arange(first, end, device=self._device),
            global_size=len(indices),
        )
        return batch, depths, model_seed

    def _collate(
        self, indices: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        item_seq, lengths, targets = (
            torch.from_numpy(part).to(self._device)
            for part in collate(self._split, indices, self._model.max_length)
        )
        return item_seq, lengths, targets
