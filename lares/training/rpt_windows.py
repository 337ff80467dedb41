"""RPT on chosen targets of whole histories, as a phase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lares.data.split import Split
from lares.objectives.rpt.histories import WindowRptBatch, WindowRptObjective
from lares.objectives.rpt.losses import RptLosses, draw_rollout_depths
from lares.training.config import SamplingOptions
from lares.training.phase import RPT_CURVES, Phase
from lares.training.steps import Place, Purpose, generator_of_step, seed_of_step
from lares.training.window_samples import WindowSamples

Made = tuple[WindowRptBatch, Sequence[int], int, int]


class WindowRptPhase(Phase):
    """RPT of a model on windows.

    Args:
        objective: with the policy to train and the frozen model that it starts from.
        sampling: how windows are cut.
        samples: training samples: every prefix.
        kept: numbers of those that passed the filter.
        seed: of the run.
        place: of this process.
    """

    losses = RptLosses._fields
    curves = RPT_CURVES

    def __init__(
        self,
        objective: WindowRptObjective,
        sampling: SamplingOptions,
        samples: Split,
        kept: NDArray[np.int64],
        seed: int,
        place: Place,
    ) -> None:
        self.objective: nn.Module = objective
        self.model, self.start = objective.model, objective.reference
        self.samples = samples
        chosen = np.zeros(len(samples), dtype=bool)
        chosen[kept] = True
        longest = self.model.config.max_length
        self._windows = WindowSamples(samples, longest, sampling.overlap, place, chosen)
        self.sizes = self._windows.sizes
        self._rpt, self._seed = objective.rpt, seed

    def make(self, indices: NDArray[np.int64], step: int) -> Made:
        """(batch of this process, depths, policy's seed, reference's seed) of the windows ``indices``
        (B,) of all."""
        depths = draw_rollout_depths(
            self.model.config,
            self._rpt.rollouts,
            generator_of_step(self._seed, step, Purpose.DEPTHS),
        )
        part = self._windows.part(indices)
        batch = WindowRptBatch(
            part.item_seq,
            part.lengths,
            part.window_ids,
            part.rows,
            part.targets,
            n_windows=len(indices),
            global_size=len(part.samples),
        )
        policy_seed = seed_of_step(self._seed, step, Purpose.MODEL_SEED)
        reference_seed = seed_of_step(self._seed, step, Purpose.REFERENCE_SEED)
        return batch, depths, policy_seed, reference_seed

    def updates(self, objective: nn.Module, made: Made) -> Iterator[tuple[Tensor, ...]]:
        """The losses of a step's updates on the same rollouts."""
        rollouts = None
        for _ in range(self._rpt.updates):
            losses, rollouts = objective(*made, rollouts)
            yield losses
