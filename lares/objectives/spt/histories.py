"""Pre-training on every prefix of a history in one pass.

With a causal mask the state of a history's item is the state of the prefix that ends there. So one
encoding of a window trains all its targets, where ``prefixes.py`` encodes a prefix for each. What
prefixes of a window share is their dropout, noise and depth. Alignment compares some of the targets of
a batch, each with its partner, which is a prefix encoded by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lares.model.packed import PackedHistories
from lares.objectives.spt.losses import SptDepths, SptLosses, SptLossesOf


@dataclass
class WindowBatch:
    """Windows of one process, on the training device: ``W`` with ``P`` targets.

    Attributes:
        windows: (W,) that draw by their numbers in the batch of all processes.
        rows: (P,) row of each target's prefix among the packed items of the windows.
        targets: (P,) item ids.
        n_windows, n_targets: in the batch of all processes.
        aligned: (M,) the targets of this process, from 0, that are aligned; None where nothing is.
        partners: (M,) one of each of them, that draw by their numbers among those of all processes.
        all_aligned: (M of all processes,) items they have as targets.
    """

    windows: PackedHistories
    rows: Tensor
    targets: Tensor
    n_windows: int
    n_targets: int
    aligned: Tensor | None = None
    partners: PackedHistories | None = None
    all_aligned: Tensor | None = None


class WindowSptObjective(SptLossesOf):
    """The losses of whole windows; arguments as of :class:`lares.objectives.spt.losses.SptLossesOf`."""

    def forward(
        self, batch: WindowBatch, depths: SptDepths, seed: int, warmth: float = 1.0
    ) -> SptLosses:
        """Losses of a batch, as means over its targets and, of alignment, over those aligned.

        Scaled so that the average over processes of their gradients is the gradient of the whole
        batch.

        Args:
            batch: windows of this process.
            depths: as :func:`lares.objectives.spt.losses.draw_depths` gives them.
            seed: 64-bit key of dropout and initial states.
            warmth: share of their weights that the alignment losses have.
        """
        encoder, is_recurrent = self.model.encoder, self.model.config.is_recurrent
        supervised = {depths.supervised_step + 1} if self.supervises(depths) else set()
        if not self.spt.aligns:
            read = sorted(supervised | {depths.recommendation}) if is_recurrent else []
            states = encoder.token_states(batch.windows, None, read, seed=seed)
            earlier = states[0] if supervised else None
            return self.losses(*self._recommendations(states[-1], earlier, batch))
        if batch.aligned is None or batch.partners is None:
            raise ValueError(
                "alignment losses need aligned targets and their partners in the batch"
            )

        # The windows to recommend, and again to be aligned, at once; states after the steps that the
        # losses read.
        size, n_rows = len(batch.windows), batch.windows.layout.n_rows
        streams = batch.windows.layout.streams
        n_own = 1 if self.spt.one_encoding else 2
        aligns_steps = self.spt.gamma > 0 and depths.alignment > 1
        read, num_steps = [], None
        if is_recurrent:
            num_steps = torch.tensor([depths.recommendation, depths.alignment][:n_own])
            num_steps = num_steps.repeat_interleave(size).to(streams.device)
            selected = {depths.selected_step + 1} if aligns_steps else set()
            read = sorted(supervised | selected | {int(num_steps.max())})
        states = encoder.token_states(
            batch.windows.repeated(n_own, torch.cat([streams, streams + batch.n_windows][:n_own])),
            None,
            read,
            num_steps,
            seed=seed,
        )
        compared = (n_own - 1) * n_rows + batch.rows[batch.aligned]
        partners = None
        if self.spt.alpha > 0:
            partners = encoder(
                batch.partners.repeated(1, n_own * batch.n_windows + batch.partners.layout.streams),
                None,
                depths.augmented if is_recurrent else None,
                seed=seed,
            ).last
        after = dict(zip(read, states, strict=True)) if is_recurrent else {}
        return self.losses(
            *self._recommendations(
                states[-1], after[depths.supervised_step + 1] if supervised else None, batch
            ),
            states[-1][compared],
            partners,
            after[depths.selected_step + 1][compared] if aligns_steps else None,
            batch.all_aligned,
            warmth,
        )

    def _recommendations(
        self, last: Tensor, earlier: Tensor | None, batch: WindowBatch
    ) -> tuple[Tensor, Tensor | None]:
        """Recommendation losses of states (N, d) at the batch's rows, and of those after an earlier
        step, if they learn."""
        losses = [
            None
            if states is None
            else self.recommendation(states[batch.rows], batch.targets, batch.n_targets)
            for states in (last, earlier)
        ]
        assert losses[0] is not None
        return losses[0], losses[1]
