"""Reinforcement post-training (arXiv 2505.16865, section 3.4) as phases.

One takes prefixes of histories, each a sequence of its own, the other chosen targets of whole
histories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lares.data.split import Split
from lares.objectives.rpt.histories import WindowRptBatch, WindowRptObjective
from lares.objectives.rpt.losses import RptLosses, RptLossesOf, draw_rollout_depths
from lares.objectives.rpt.prefixes import RptBatch, RptObjective
from lares.training.config import SamplingOptions
from lares.training.phase import Phase
from lares.training.plots import CURVES
from lares.training.steps import Place, Purpose, ResidentSamples, generator_of_step, seed_of_step
from lares.training.window_samples import WindowSamples

Drawn = tuple[Sequence[int], int, int]  # depths, policy's seed, reference's seed


class RptPhaseOf(Phase):
    """Share what both phases have.

    Args:
        objective: with the policy to train and the frozen model that it starts from.
        samples: training samples.
        seed: of the run.
    """

    losses = RptLosses._fields
    curves = CURVES["posttrain"]

    def __init__(self, objective: RptLossesOf[Any], samples: Split, seed: int) -> None:
        self.objective: nn.Module = objective
        self.model, self.start = objective.model, objective.reference
        self.samples = samples
        self._rpt, self._seed = objective.rpt, seed

    def _drawn(self, step: int) -> Drawn:
        generator = generator_of_step(self._seed, step, Purpose.DEPTHS)
        depths = draw_rollout_depths(self.model.config, self._rpt.rollouts, generator)
        seeds = (Purpose.MODEL_SEED, Purpose.REFERENCE_SEED)
        policy, reference = (seed_of_step(self._seed, step, purpose) for purpose in seeds)
        return depths, policy, reference

    def updates(self, objective: nn.Module, made: tuple[Any, ...]) -> Iterator[tuple[Tensor, ...]]:
        """The losses of a step's updates on the same rollouts."""
        rollouts = None
        for _ in range(self._rpt.updates):
            losses, rollouts = objective(*made, rollouts)
            yield losses


class RptPhase(RptPhaseOf):
    """RPT of a model on prefixes; arguments as of :class:`RptPhaseOf`.

    Args:
        samples: those that passed the filter.
        place: of this process.
    """

    def __init__(self, objective: RptObjective, samples: Split, seed: int, place: Place) -> None:
        super().__init__(objective, samples, seed)
        self.sizes = np.ones(len(samples), dtype=np.int64)
        self._place = place
        self._resident = ResidentSamples(samples, self.model.config, place.device)

    def make(
        self, indices: NDArray[np.int64], step: int
    ) -> tuple[RptBatch, Sequence[int], int, int]:
        """(batch of this process, depths, policy's seed, reference's seed) of the samples ``indices``
        (B,) of all."""
        first, end = self._place.part(len(indices))
        numbers = torch.arange(first, end, device=self._place.device)
        histories, targets = self._resident.collate(indices[first:end], numbers)
        return RptBatch(histories, targets, len(indices)), *self._drawn(step)


class WindowRptPhase(RptPhaseOf):
    """RPT of a model on windows; arguments as of :class:`RptPhaseOf`.

    Args:
        sampling: how windows are cut.
        samples: every prefix.
        kept: numbers of those that passed the filter.
        place: of this process.
    """

    def __init__(
        self,
        objective: WindowRptObjective,
        sampling: SamplingOptions,
        samples: Split,
        kept: NDArray[np.int64],
        seed: int,
        place: Place,
    ) -> None:
        super().__init__(objective, samples, seed)
        chosen = np.zeros(len(samples), dtype=bool)
        chosen[kept] = True
        self._windows = WindowSamples(samples, self.model.config, sampling.overlap, place, chosen)
        self.sizes = self._windows.sizes

    def make(
        self, indices: NDArray[np.int64], step: int
    ) -> tuple[WindowRptBatch, Sequence[int], int, int]:
        """(batch of this process, depths, policy's seed, reference's seed) of the windows ``indices``
        (B,) of all."""
        part = self._windows.part(indices)
        sizes = len(indices), len(part.samples)
        batch = WindowRptBatch(part.windows, part.rows, part.targets, *sizes)
        return batch, *self._drawn(step)
