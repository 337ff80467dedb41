"""SPT (arXiv 2505.16865, section 3.3) on every prefix of a history in one pass.

With a causal mask the state of a history's item is the state of the prefix that ends there. So one
encoding of a window trains all its targets, where ``spt.py`` encodes a prefix for each. What prefixes
of a window share is their dropout, noise and depth. Alignment compares some of the targets of a batch,
each with its partner, which is a prefix encoded by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lares_kernels as lk
from lares.model import LaresModel
from lares.objectives.spt import (
    SptConfig,
    SptDepths,
    SptLosses,
    check_steps_to_align,
    symmetric_nce,
)


@dataclass
class WindowBatch:
    """Windows of one process, on the training device: ``W`` with ``P`` targets.

    Attributes:
        item_seq: (W, L) int64, right padded; lengths: (W,).
        window_ids: (W,) number of each window in the batch of all processes.
        rows: (P,) row of each target's prefix among the packed items of the windows.
        targets: (P,) item ids.
        n_windows, n_targets: in the batch of all processes.
        aligned: (M,) the targets of this process, from 0, that are aligned; None where nothing is.
        partner_seq, partner_lengths: (M, L), (M,) partner of each of them.
        partner_ids: (M,) number of each of them among those of all processes.
        all_aligned: (M of all processes,) items they have as targets.
    """

    item_seq: Tensor
    lengths: Tensor
    window_ids: Tensor
    rows: Tensor
    targets: Tensor
    n_windows: int
    n_targets: int
    aligned: Tensor | None = None
    partner_seq: Tensor | None = None
    partner_lengths: Tensor | None = None
    partner_ids: Tensor | None = None
    all_aligned: Tensor | None = None


class WindowSptObjective(nn.Module):
    """Model and objective as one module, so that an engine that wraps modules wraps the whole step.

    Args:
        model, spt, gather, n_processes: as of :class:`lares.objectives.spt.SptObjective`.
    """

    def __init__(
        self,
        model: LaresModel,
        spt: SptConfig,
        gather: Callable[[Tensor], Tensor] | None = None,
        n_processes: int = 1,
    ) -> None:
        super().__init__()
        check_steps_to_align(model.config, spt)
        self.model = model
        self.spt = spt
        self._gather = gather
        self._n_processes = n_processes

    def forward(self, batch: WindowBatch, depths: SptDepths, seed: int) -> SptLosses:
        """Losses of a batch, as means over its targets and, of alignment, over those aligned.

        Scaled so that the average over processes of their gradients is the gradient of the whole
        batch.

        Args:
            batch: windows of this process.
            depths: as :func:`lares.objectives.spt.draw_depths` gives them.
            seed: 64-bit key of dropout and initial states.
        """
        encoder, is_recurrent = self.model.encoder, self.model.config.is_recurrent
        if not self.spt.aligns:
            steps = [depths.recommendation] if is_recurrent else []
            states = encoder.token_states(
                batch.item_seq, batch.lengths, steps, seed=seed, sequence_ids=batch.window_ids
            )
            recommendation = self._recommendation(states[-1][batch.rows], batch)
            zero = torch.zeros_like(recommendation)
            return SptLosses(recommendation, recommendation, zero, zero)
        if batch.aligned is None or batch.partner_seq is None or batch.partner_lengths is None:
            raise ValueError(
                "alignment losses need aligned targets and their partners in the batch"
            )
        assert batch.partner_ids is not None

        # Both encodings of the windows at once, and their states after the step that is aligned.
        size, n_rows = len(batch.lengths), int(batch.lengths.sum())
        read: list[int] = []
        num_steps = None
        if is_recurrent:
            num_steps = torch.tensor([depths.recommendation, depths.alignment])
            num_steps = num_steps.repeat_interleave(size).to(batch.lengths.device)
            read = sorted({depths.selected_step + 1, int(num_steps.max())})
        states = encoder.token_states(
            batch.item_seq.repeat(2, 1),
            batch.lengths.repeat(2),
            read,
            num_steps,
            seed=seed,
            sequence_ids=torch.cat((batch.window_ids, batch.window_ids + batch.n_windows)),
        )
        recommendation = self._recommendation(states[-1][batch.rows], batch)
        compared = n_rows + batch.rows[batch.aligned]
        align = self._gather_rows(states[-1][compared])
        wanted: dict[str, Tensor] = {}
        if self.spt.alpha > 0:
            partners = encoder(
                batch.partner_seq,
                batch.partner_lengths,
                depths.augmented if is_recurrent else None,
                seed=seed,
                sequence_ids=2 * batch.n_windows + batch.partner_ids,
            )
            wanted["trajectory"] = self._gather_rows(partners.last)
        if self.spt.gamma > 0 and depths.alignment > 1:
            wanted["step"] = self._gather_rows(states[0][compared])
        config = self.model.config
        losses = dict.fromkeys(("trajectory", "step"), torch.zeros_like(recommendation))
        if wanted:
            targets = batch.all_aligned if self.spt.mask_same_target else None
            found = symmetric_nce(
                align, list(wanted.values()), config.tau, config.scores == "cos", targets
            )
            losses |= dict(zip(wanted, found, strict=True))
        total = (
            recommendation + self.spt.alpha * losses["trajectory"] + self.spt.gamma * losses["step"]
        )
        return SptLosses(total, recommendation, losses["trajectory"], losses["step"])

    def _recommendation(self, states: Tensor, batch: WindowBatch) -> Tensor:
        """Cross entropy over all catalogue rows, scaled for averaging over processes."""
        summed = lk.catalogue_cross_entropy(
            states, self.model.items, batch.targets, reduction="sum", **self.model.scoring
        )
        return summed * (self._n_processes / batch.n_targets)

    def _gather_rows(self, rows: Tensor) -> Tensor:
        return rows if self._gather is None else self._gather(rows)
