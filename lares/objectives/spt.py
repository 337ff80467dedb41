"""The self-supervised pre-training objective (LARES, arXiv 2505.16865, section 3.3).

Three encodings a batch: the sequence with its own depth (recommendation), the sequence again with
every step kept (alignment), and a partner with the same target (augmented). They are one packed call
of ``3 B`` sequences, each with its own depth and random stream.
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
from lares.config import LaresConfig
from lares.depth import sample_depth
from lares.errors import ConfigError
from lares.model import LaresModel


@dataclass(frozen=True)
class SptConfig:
    """Weights of the alignment losses.

    Attributes:
        alpha: weight of trajectory-level alignment; 0 leaves it out.
        gamma: weight of step-level alignment; 0 leaves it out.
        same_step: the partner reasons to the same depth as the sequence it is aligned with.
        mask_same_target: samples of a batch that have the same target are no negatives of each other.
            The authors' are.
    """

    alpha: float = 0.1
    gamma: float = 0.5
    same_step: bool = True
    mask_same_target: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "gamma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value!r}; it must be zero or more")

    @property
    def aligns(self) -> bool:
        """Whether anything but the recommendation loss is wanted."""
        return self.alpha > 0 or self.gamma > 0


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
    """Reasoning depths of a batch; ``selected_step`` (from 0) is the one aligned with the last."""

    recommendation: int
    alignment: int
    augmented: int
    selected_step: int


class SptLosses(NamedTuple):
    """Scalars; ``total`` is ``recommendation + alpha * trajectory + gamma * step``."""

    total: Tensor
    recommendation: Tensor
    trajectory: Tensor
    step: Tensor


def check_steps_to_align(config: LaresConfig, spt: SptConfig) -> None:
    """Raise ``ConfigError`` if steps are to be aligned of a model that has none."""
    if not config.is_recurrent and spt.gamma > 0:
        raise ConfigError(
            f"gamma is {spt.gamma}, but a model without recurrence (n_core_layers=0) has no "
            "steps to align; set objective.gamma to 0"
        )


def draw_depths(config: LaresConfig, spt: SptConfig, generator: np.random.Generator) -> SptDepths:
    """One batch's depths: one ``T`` for each encoding, and the step to align."""
    if not config.is_recurrent:
        return SptDepths(0, 0, 0, 0)
    recommendation, alignment, augmented = (
        sample_depth(config.depth_sampler, config.mean_depth, generator) for _ in range(3)
    )
    selected = int(generator.integers(alignment))
    return SptDepths(recommendation, alignment, alignment if spt.same_step else augmented, selected)


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
        check_steps_to_align(model.config, spt)
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

    def losses(
        self,
        recommendation: Tensor,
        align: Tensor | None = None,
        partners: Tensor | None = None,
        step: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> SptLosses:
        """All losses; an alignment whose states are None is zero.

        Args:
            recommendation: scalar.
            align: (M, d) states of this process that are aligned.
            partners: (M, d) states of their partners.
            step: (M, d) their own after the step that is aligned with the last.
            targets: (M of all processes,) items they have as targets; read to mask negatives.
        """
        others = {"trajectory": partners, "step": step}
        wanted = {name: self._gathered(rows) for name, rows in others.items() if rows is not None}
        found = dict.fromkeys(others, torch.zeros_like(recommendation))
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
        total = (
            recommendation + self.spt.alpha * found["trajectory"] + self.spt.gamma * found["step"]
        )
        return SptLosses(total, recommendation, found["trajectory"], found["step"])

    def _gathered(self, rows: Tensor) -> Tensor:
        return rows if self._gather is None else self._gather(rows)


class SptObjective(SptLossesOf):
    """Every sample a sequence of its own, as published; arguments as of :class:`SptLossesOf`."""

    def forward(
        self,
        batch: SptBatch,
        depths: SptDepths,
        seed: int,
        initial_states: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> SptLosses:
        """Losses of a batch.

        Scaled so that the average over processes of their gradients is the gradient of the whole
        batch.

        Args:
            batch: samples of this process.
            depths: as :func:`draw_depths` gives them.
            seed: 64-bit key of dropout and initial states.
            initial_states: (B, L, d) of the three encodings, to fix them; drawn by default.
        """
        if not self.spt.aligns:
            last, _ = self._encode(
                batch.item_seq,
                batch.lengths,
                depths.recommendation,
                batch.sequence_ids,
                seed,
                None if initial_states is None else initial_states[0],
            )
            return self.losses(self.recommendation(last, batch.targets, batch.global_size))
        if batch.partner_seq is None or batch.partner_lengths is None:
            raise ValueError("alignment losses need partner_seq and partner_lengths in the batch")

        size = len(batch.targets)
        roles = (depths.recommendation, depths.alignment, depths.augmented)
        device = batch.item_seq.device
        steps = torch.tensor(roles, device=device).repeat_interleave(size)
        role_offsets = torch.arange(3, device=device).repeat_interleave(size) * batch.global_size
        last, trajectory = self._encode(
            _stack_padded([batch.item_seq, batch.item_seq, batch.partner_seq]),
            torch.cat([batch.lengths, batch.lengths, batch.partner_lengths]),
            steps if self.model.config.is_recurrent else 0,
            batch.sequence_ids.repeat(3) + role_offsets,
            seed,
            None if initial_states is None else torch.cat(initial_states),
        )
        rec, align, aug = last.split(size)
        step = None
        if self.spt.gamma > 0 and depths.alignment > 1:
            assert trajectory is not None
            step = trajectory[size : 2 * size, depths.selected_step]
        return self.losses(
            self.recommendation(rec, batch.targets, batch.global_size),
            align,
            aug if self.spt.alpha > 0 else None,
            step,
            batch.all_targets,
        )

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
