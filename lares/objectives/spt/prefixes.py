"""Pre-training with a sequence for every sample, as published.

Three encodings a batch: the sequence with its own depth (recommendation), the sequence again with
every step kept (alignment), and a partner with the same target (augmented). They are one packed call
of ``3 B`` sequences, each with its own depth and random stream. ``one_encoding`` has the first serve
for the second, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lares.model.packed import PackedHistories
from lares.objectives.spt.losses import SptDepths, SptLosses, SptLossesOf


@dataclass
class SptBatch:
    """Training samples of one process, on the training device; ``B`` of ``global_size``.

    Attributes:
        histories: that draw by their numbers in the batch of all processes.
        targets: (B,) item ids.
        partners: one a history; None where nothing is aligned.
        global_size: samples in the batch of all processes.
        all_targets: (global_size,) targets of the batch of all processes; needed to mask negatives.
    """

    histories: PackedHistories
    targets: Tensor
    partners: PackedHistories | None
    global_size: int
    all_targets: Tensor | None = None


class SptObjective(SptLossesOf):
    """Every sample a sequence of its own, as published; arguments as of :class:`SptLossesOf`."""

    def forward(
        self,
        batch: SptBatch,
        depths: SptDepths,
        seed: int,
        warmth: float = 1.0,
        initial_states: Sequence[Tensor] | None = None,
    ) -> SptLosses:
        """Losses of a batch.

        Scaled so that the average over processes of their gradients is the gradient of the whole
        batch.

        Args:
            batch: samples of this process.
            depths: as :func:`lares.objectives.spt.losses.draw_depths` gives them.
            seed: 64-bit key of dropout and initial states.
            warmth: share of their weights that the alignment losses have.
            initial_states: (B, L, d) of the three encodings (or two: ``one_encoding``), to fix them;
                drawn by default.
        """
        size = len(batch.targets)
        if not self.spt.aligns:
            last, trajectory = self._encode(
                batch.histories,
                depths.recommendation,
                seed,
                None if initial_states is None else initial_states[0],
            )
            return self.losses(*self._recommendations(last, trajectory, batch, depths))
        if batch.partners is None:
            raise ValueError("alignment losses need partners in the batch")

        # What is encoded: each sample to recommend, again to be aligned, and its partner.
        own = (
            [depths.recommendation]
            if self.spt.one_encoding
            else [depths.recommendation, depths.alignment]
        )
        n_own, device = len(own), batch.targets.device
        steps = torch.tensor([*own, depths.augmented], device=device).repeat_interleave(size)
        role_offsets = torch.arange(n_own + 1, device=device) * batch.global_size
        streams = role_offsets[:, None] + batch.histories.layout.streams
        last, trajectory = self._encode(
            PackedHistories.joined([*[batch.histories] * n_own, batch.partners], streams.flatten()),
            steps if self.model.config.is_recurrent else 0,
            seed,
            None if initial_states is None else torch.cat(list(initial_states)),
        )
        parts = last.split(size)
        step = None
        if self.spt.gamma > 0 and depths.alignment > 1:
            assert trajectory is not None
            step = trajectory[(n_own - 1) * size : n_own * size, depths.selected_step]
        return self.losses(
            *self._recommendations(parts[0], trajectory, batch, depths),
            parts[n_own - 1],
            parts[-1] if self.spt.alpha > 0 else None,
            step,
            batch.all_targets,
            warmth,
        )

    def _recommendations(
        self, last: Tensor, trajectory: Tensor | None, batch: SptBatch, depths: SptDepths
    ) -> tuple[Tensor, Tensor | None]:
        """Recommendation losses of ``last`` (B, d) and, if it learns, of the earlier step among
        ``trajectory`` (B or more, T, d)."""
        targets = (batch.targets, batch.global_size)
        earlier = None
        if self.supervises(depths):
            assert trajectory is not None
            states = trajectory[: len(last), depths.supervised_step]
            earlier = self.recommendation(states, *targets)
        return self.recommendation(last, *targets), earlier

    def _encode(
        self,
        histories: PackedHistories,
        steps: int | Tensor,
        seed: int,
        initial_state: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """(last (B, d), trajectory (B, T, d) or None)."""
        out = self.model.encoder(
            histories, None, steps, initial_state, seed=seed, return_trajectory=True
        )
        return out.last, out.trajectory
