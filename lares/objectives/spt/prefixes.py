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
from torch.nn import functional

from lares.objectives.spt.losses import SptDepths, SptLosses, SptLossesOf


@dataclass
class SptBatch:
    """Training samples of one process, on the training device; ``B`` of ``global_size``.

    Attributes:
        item_seq: (B, L) int64, right padded; lengths: (B,); targets: (B,) item ids.
        partner_seq, partner_lengths: as the sequence's, of its partner; None where nothing is aligned.
        sequence_ids: (B,) number of each sample in the batch of all processes.
        global_size: samples in the batch of all processes.
        all_targets: (global_size,) targets of the batch of all processes; needed to mask negatives.
    """

    item_seq: Tensor
    lengths: Tensor
    targets: Tensor
    partner_seq: Tensor | None
    partner_lengths: Tensor | None
    sequence_ids: Tensor
    global_size: int
    all_targets: Tensor | None = None


def _stack_padded(parts: list[Tensor]) -> Tensor:
    """Right-padded id matrices (B_i, L_i) one above the other, padded to the widest."""
    widest = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, widest - part.shape[1])) for part in parts])


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
                batch.item_seq,
                batch.lengths,
                depths.recommendation,
                batch.sequence_ids,
                seed,
                None if initial_states is None else initial_states[0],
            )
            return self.losses(*self._recommendations(last, trajectory, batch, depths))
        if batch.partner_seq is None or batch.partner_lengths is None:
            raise ValueError("alignment losses need partner_seq and partner_lengths in the batch")

        # What is encoded: each sample to recommend, again to be aligned, and its partner.
        own = (
            [depths.recommendation]
            if self.spt.one_encoding
            else [depths.recommendation, depths.alignment]
        )
        n_own, device = len(own), batch.item_seq.device
        steps = torch.tensor([*own, depths.augmented], device=device).repeat_interleave(size)
        role_offsets = torch.arange(n_own + 1, device=device).repeat_interleave(size)
        last, trajectory = self._encode(
            _stack_padded([*[batch.item_seq] * n_own, batch.partner_seq]),
            torch.cat([*[batch.lengths] * n_own, batch.partner_lengths]),
            steps if self.model.config.is_recurrent else 0,
            batch.sequence_ids.repeat(n_own + 1) + role_offsets * batch.global_size,
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
        item_seq: Tensor,
        lengths: Tensor,
        steps: int | Tensor,
        sequence_ids: Tensor,
        seed: int,
        initial_state: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """(last (B, d), trajectory (B, T, d) or None)."""
        out = self.model.encoder(
            item_seq,
            lengths,
            steps,
            initial_state,
            seed=seed,
            sequence_ids=sequence_ids,
            return_trajectory=True,
        )
        return out.last, out.trajectory
