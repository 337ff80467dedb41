"""The self-supervised pre-training objective (LARES, arXiv 2505.16865, section 3.3).

Three encodings a batch: the sequence with its own depth (recommendation), the sequence again with
every step kept (alignment), and a partner with the same target (augmented). They are one packed call
of ``3 B`` sequences, each with its own depth and random stream. ``one_encoding`` has the first serve
for the second, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import lares_kernels as lk
from lares.model.config import LaresConfig
from lares.model.depth import sample_depth
from lares.model.model import LaresModel
from lares.objectives.config import SptConfig, check_has_steps


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


class SptDepths(NamedTuple):
    """Reasoning depths of a batch, and steps, counted from 0: ``selected_step`` is the one aligned
    with the last, ``supervised_step`` the one that recommends beside it."""

    recommendation: int
    alignment: int
    augmented: int
    selected_step: int
    supervised_step: int = 0


class SptLosses(NamedTuple):
    """Scalars; ``total`` is ``recommendation + alpha * trajectory + gamma * step + deep_supervision *
    earlier``."""

    total: Tensor
    recommendation: Tensor
    trajectory: Tensor
    step: Tensor
    earlier: Tensor


def draw_depths(config: LaresConfig, spt: SptConfig, generator: np.random.Generator) -> SptDepths:
    """One batch's depths: one ``T`` for each encoding, and the steps that learn beside the last."""
    if not config.is_recurrent:
        return SptDepths(0, 0, 0, 0)
    recommendation, alignment, augmented = (
        sample_depth(config.depth_sampler, config.mean_depth, generator) for _ in range(3)
    )
    if spt.one_encoding:
        alignment = recommendation
    selected = int(generator.integers(alignment))
    supervised = int(generator.integers(max(recommendation - 1, 1)))
    return SptDepths(
        recommendation,
        alignment,
        alignment if spt.same_step else augmented,
        selected,
        supervised,
    )


def symmetric_nce(
    x: Tensor,
    others: Sequence[Tensor],
    tau: float,
    normalise: bool,
    targets: Tensor | None = None,
) -> list[Tensor]:
    """``(NCE(x, y) + NCE(y, x)) / 2`` for each ``y`` of ``others``, all (B, d).

    ``NCE(x, y) = CrossEntropy(x y^T / tau, diagonal)``: each row of ``x`` must find its own in ``y``.
    One product serves all: that of ``NCE(y, x)`` is a transpose of ``NCE(x, y)``'s. With ``targets``
    (B,) rows that share one are no negatives of each other.
    """
    same = None
    if targets is not None:
        same = targets[:, None] == targets[None, :]
        same.fill_diagonal_(False)
    stacked = torch.cat(list(others))
    if normalise:
        x, stacked = functional.normalize(x, dim=-1), functional.normalize(stacked, dim=-1)
    found = []
    for scores in (x @ stacked.mT / tau).split(len(x), dim=1):
        own = scores.diagonal()
        if same is not None:
            scores = scores.masked_fill(same, -math.inf)
        both = scores.logsumexp(dim=1) + scores.logsumexp(dim=0)
        found.append((both / 2 - own).mean())
    return found


def _stack_padded(parts: list[Tensor]) -> Tensor:
    """Right-padded id matrices (B_i, L_i) one above the other, padded to the widest."""
    widest = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, widest - part.shape[1])) for part in parts])


class SptLossesOf(nn.Module):
    """The losses of encoded samples, whichever way these were encoded.

    Model and objective are one module, so that an engine that wraps modules wraps the whole step.

    Args:
        model: to train.
        spt: weights of the losses.
        gather: differentiable all-gather over processes, (B_r, d) to (B, d) in rank order, whose
            backward sums over ranks; None for one process. In-batch negatives are then those of the
            whole batch.
    """

    def __init__(
        self,
        model: LaresModel,
        spt: SptConfig,
        gather: Callable[[Tensor], Tensor] | None = None,
        n_processes: int = 1,
    ) -> None:
        super().__init__()
        check_has_steps(model.config, spt)
        self.model = model
        self.spt = spt
        self._gather = gather
        self._n_processes = n_processes

    def recommendation(self, states: Tensor, targets: Tensor, n_targets: int) -> Tensor:
        """Cross entropy of states (B, d) over all catalogue rows, scaled for averaging over processes.

        Args:
            states: of this process.
            targets: (B,) item ids.
            n_targets: in the batch of all processes.
        """
        summed = lk.catalogue_cross_entropy(
            states, self.model.items, targets, reduction="sum", **self.model.scoring
        )
        return summed * (self._n_processes / n_targets)

    def supervises(self, depths: SptDepths) -> bool:
        """Whether a step before the last recommends, too."""
        return self.spt.deep_supervision > 0 and depths.recommendation > 1

    def losses(
        self,
        recommendation: Tensor,
        earlier: Tensor | None = None,
        align: Tensor | None = None,
        partners: Tensor | None = None,
        step: Tensor | None = None,
        targets: Tensor | None = None,
        warmth: float = 1.0,
    ) -> SptLosses:
        """All losses; those that are not given, and alignments whose states are None, are zero.

        Args:
            recommendation: scalar.
            earlier: scalar, the recommendation loss after an earlier step.
            align: (M, d) states of this process that are aligned.
            partners: (M, d) states of their partners.
            step: (M, d) their own after the step that is aligned with the last.
            targets: (M of all processes,) items they have as targets; read to mask negatives.
            warmth: share of their weights that alignments have.
        """
        others = {"trajectory": partners, "step": step}
        wanted = {name: self._gathered(rows) for name, rows in others.items() if rows is not None}
        none = torch.zeros_like(recommendation)
        found = dict.fromkeys(others, none)
        if align is not None and wanted:
            config = self.model.config
            aligned = symmetric_nce(
                self._gathered(align),
                list(wanted.values()),
                config.tau,
                config.scores == "cos",
                targets if self.spt.mask_same_target else None,
            )
            found |= dict(zip(wanted, aligned, strict=True))
        alignment = self.spt.alpha * found["trajectory"] + self.spt.gamma * found["step"]
        total = recommendation + warmth * alignment
        if earlier is not None:
            total = total + self.spt.deep_supervision * earlier
        return SptLosses(
            total,
            recommendation,
            found["trajectory"],
            found["step"],
            none if earlier is None else earlier,
        )

    def _gathered(self, rows: Tensor) -> Tensor:
        return rows if self._gather is None else self._gather(rows)


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
            depths: as :func:`draw_depths` gives them.
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
