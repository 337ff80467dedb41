"""Self-supervised pre-training (arXiv 2505.16865, section 3.3) as phases.

One takes prefixes of histories, each a sequence of its own, the other every prefix of a history in one
pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lares.data.partners import PartnerIndex
from lares.data.split import Split
from lares.model.model import LaresModel
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.histories import WindowBatch, WindowSptObjective
from lares.objectives.spt.losses import SptDepths, SptLosses, SptLossesOf, draw_depths
from lares.objectives.spt.prefixes import SptBatch, SptObjective
from lares.training.config import SamplingOptions
from lares.training.distributed import gather_rows
from lares.training.phase import Phase
from lares.training.plots import CURVES
from lares.training.steps import Place, Purpose, ResidentSamples, generator_of_step, seed_of_step
from lares.training.window_samples import WindowSamples

Drawn = tuple[SptDepths, int, float]  # depths, model seed, share of alignment


class SptPhaseOf(Phase):
    """Share what both phases have.

    Args:
        kind: of the objective.
        model: to train.
        spt: weights of the losses.
        samples: training samples.
        seed: of the run.
        place: of this process.
    """

    losses = SptLosses._fields
    curves = CURVES["train"]
    start = None

    def __init__(
        self,
        kind: type[SptLossesOf],
        model: LaresModel,
        spt: SptConfig,
        samples: Split,
        seed: int,
        place: Place,
    ) -> None:
        several = place.n_processes > 1
        self.model, self.samples = model, samples
        self.objective: nn.Module = kind(
            model, spt, gather_rows if several else None, place.n_processes
        )
        self._spt, self._seed, self._place = spt, seed, place
        self._partners = PartnerIndex(samples) if spt.aligns else None

    def _drawn(self, step: int) -> Drawn:
        generator = generator_of_step(self._seed, step, Purpose.DEPTHS)
        depths = draw_depths(self.model.config, self._spt, generator)
        return depths, seed_of_step(self._seed, step, Purpose.MODEL_SEED), self._spt.warmth(step)

    def updates(self, objective: nn.Module, made: tuple[Any, ...]) -> Iterator[tuple[Tensor, ...]]:
        """The losses of a step's one update."""
        yield objective(*made)


class SptPhase(SptPhaseOf):
    """SPT of a model on prefixes; arguments as of :class:`SptPhaseOf`, but for the objective's."""

    def __init__(
        self, model: LaresModel, spt: SptConfig, samples: Split, seed: int, place: Place
    ) -> None:
        super().__init__(SptObjective, model, spt, samples, seed, place)
        self.sizes = np.ones(len(samples), dtype=np.int64)
        self._resident = ResidentSamples(samples, model.config, place.device)

    def make(self, indices: NDArray[np.int64], step: int) -> tuple[SptBatch, SptDepths, int, float]:
        """(batch of this process, depths, model seed, share of alignment) of the samples ``indices``
        (B,) of all."""
        first, end = self._place.part(len(indices))
        numbers = torch.arange(first, end, device=self._place.device)
        histories, targets = self._resident.collate(indices[first:end], numbers)
        partners = None
        if self._partners is not None:
            generator = generator_of_step(self._seed, step, Purpose.PARTNERS)
            # Drawn for the whole batch, so that any number of processes draws the same.
            drawn = self._partners.draw(indices, generator)
            partners, _ = self._resident.collate(drawn[first:end], numbers)
        batch = SptBatch(
            histories=histories,
            targets=targets,
            partners=partners,
            global_size=len(indices),
            all_targets=self._resident.items_at(self.samples.ends[indices])
            if self._spt.mask_same_target
            else None,
        )
        return batch, *self._drawn(step)


class WindowSptPhase(SptPhaseOf):
    """SPT of a model on windows; arguments as of :class:`SptPhaseOf`, but for the objective's.

    Args:
        model: its tokens must not see later ones, nor padding.
        sampling: how windows are cut, and how many targets are aligned.
        samples: every prefix.
    """

    def __init__(
        self,
        model: LaresModel,
        spt: SptConfig,
        sampling: SamplingOptions,
        samples: Split,
        seed: int,
        place: Place,
    ) -> None:
        super().__init__(WindowSptObjective, model, spt, samples, seed, place)
        self._sampling = sampling
        self._windows = WindowSamples(samples, model.config, sampling.overlap, place)
        self.sizes = self._windows.sizes

    def make(
        self, indices: NDArray[np.int64], step: int
    ) -> tuple[WindowBatch, SptDepths, int, float]:
        """(batch of this process, depths, model seed, share of alignment) of the windows ``indices``
        (B,) of all."""
        part = self._windows.part(indices)
        batch = WindowBatch(
            part.windows,
            part.rows,
            part.targets,
            n_windows=len(indices),
            n_targets=len(part.samples),
        )
        if self._partners is not None:
            self._align(batch, part.samples, part.first, part.end, step)
        return batch, *self._drawn(step)

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
        numbers = torch.arange(int(own_first), int(own_end), device=device)
        batch.partners, _ = resident.collate(partners[own_first:own_end], numbers)
        batch.all_aligned = resident.items_at(self.samples.ends[samples[chosen]])
