"""The losses of pre-training, whichever way samples are encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import lares_kernels as lk
from lares.model.config import LaresConfig
from lares.model.depth import sample_depth
from lares.model.model import LaresModel
from lares.objectives.spt.config import SptConfig, check_has_steps


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
        catalogue = self.model.catalogue
        summed = lk.catalogue_cross_entropy(
            states, catalogue.items, targets, reduction="sum", **catalogue.scoring
        )
        return summed * (self._n_processes / n_targets)

    def supervises(self, depths: SptDepths) -> bool:
        """Tell whether a step before the last recommends, too."""
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
                config.scores == "cosine",
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
