"""SPT on every prefix of a history in one pass, as a phase."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lares.data.partners import PartnerIndex
from lares.data.split import Split
from lares.model.model import LaresModel
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.histories import WindowBatch, WindowSptObjective
from lares.objectives.spt.losses import SptDepths, SptLosses, draw_depths
from lares.training.config import SamplingOptions
from lares.training.distributed import gather_rows
from lares.training.phase import SPT_CURVES, Phase
from lares.training.steps import Place, Purpose, generator_of_step, seed_of_step
from lares.training.window_samples import WindowSamples


class WindowSptPhase(Phase):
    """SPT of a model on windows.

    Args:
        model: to train; its tokens must not see later ones, nor padding.
        spt: weights of the losses.
        sampling: how windows are cut, and how many targets are aligned.
        samples: training samples: every prefix.
        seed: of the run.
        place: of this process.
    """

    losses = SptLosses._fields
    curves = SPT_CURVES
    start = None

    def __init__(
        self,
        model: LaresModel,
        spt: SptConfig,
        sampling: SamplingOptions,
        samples: Split,
        seed: int,
        place: Place,
    ) -> None:
        several = place.n_processes > 1
        self.model, self.samples = model, samples
        self.objective: nn.Module = WindowSptObjective(
            model, spt, gather_rows if several else None, place.n_processes
        )
        self._spt, self._sampling, self._seed, self._place = spt, sampling, seed, place
        self._windows = WindowSamples(samples, model.config.max_length, sampling.overlap, place)
        self.sizes = self._windows.sizes
        self._partners = PartnerIndex(samples) if spt.aligns else None

    def make(
        self, indices: NDArray[np.int64], step: int
    ) -> tuple[WindowBatch, SptDepths, int, float]:
        """(batch of this process, depths, model seed, share of alignment) of the windows ``indices``
        (B,) of all."""
        depths = draw_depths(
            self.model.config, self._spt, generator_of_step(self._seed, step, Purpose.DEPTHS)
        )
        part = self._windows.part(indices)
        batch = WindowBatch(
            part.item_seq,
            part.lengths,
            part.window_ids,
            part.rows,
            part.targets,
            n_windows=len(indices),
            n_targets=len(part.samples),
        )
        if self._partners is not None:
            self._align(batch, part.samples, part.first, part.end, step)
        model_seed = seed_of_step(self._seed, step, Purpose.MODEL_SEED)
        return batch, depths, model_seed, self._spt.warmth(step)

    def _align(
        self, batch: WindowBatch, samples: NDArray[np.int64], first: int, end: int, step: int
    ) -> None:
        """Choose the targets to align, for the whole batch, and add this process's with partners."""
        assert self._partners is not None
        device, resident = self._place.device, self._windows.resident
        generator = generator_of_step(self._seed, step, Purpose.PARTNERS)
        chosen = np.arange(len(samples))
        if 0 < self._sampling.aligned < len(samples):
            chosen = np.sort(generator.choice(len(samples), self._sampling.aligned, replace=False))
        partners = self._partners.draw(samples[chosen], generator)
        own_first, own_end = np.searchsorted(chosen, (first, end))
        batch.aligned = torch.from_numpy(chosen[own_first:own_end] - first).to(device)
        batch.partner_ids = torch.arange(int(own_first), int(own_end), device=device)
        batch.partner_seq, batch.partner_lengths, _ = resident.collate(partners[own_first:own_end])
        batch.all_aligned = resident.items_at(self.samples.ends[samples[chosen]])

    def updates(
        self, objective: nn.Module, made: tuple[WindowBatch, SptDepths, int, float]
    ) -> Iterator[tuple[Tensor, ...]]:
        """The losses of a step's one update."""
        yield objective(*made)
