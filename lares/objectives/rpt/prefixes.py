"""Post-training with a sequence for every rollout of a sample, as published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lares.model.encoder import EncoderOutput
from lares.model.model import LaresModel
from lares.objectives.rpt.losses import RptLossesOf


class RptBatch(NamedTuple):
    """Samples of one step, or this process's part of them, on the training device.

    Attributes:
        item_seq: (B, L) int64, right padded; lengths: (B,); targets: (B,) item ids.
        sequence_ids: (B,) number of each sample in the batch of all processes.
        global_size: samples in the batch of all processes.
    """

    item_seq: Tensor
    lengths: Tensor
    targets: Tensor
    sequence_ids: Tensor
    global_size: int


class RptObjective(RptLossesOf[RptBatch]):
    """The objective on prefixes; arguments as of :class:`lares.objectives.rpt.losses.RptLossesOf`."""

    def encode(
        self,
        model: LaresModel,
        batch: RptBatch,
        depths: Sequence[int],
        seed: int,
        initial_states: Tensor | None,
        shares: bool,
    ) -> Tensor:
        """States (B, G, T_max, d) of the newest item after every step of every rollout."""
        size, n_groups = len(batch.targets), self.rpt.rollouts
        device = batch.targets.device
        each = torch.tensor(depths, dtype=torch.int32, device=device).expand(size, -1)
        if shares:
            out: EncoderOutput = model.encoder(
                batch.item_seq,
                batch.lengths,
                each,
                initial_states,
                seed=seed,
                sequence_ids=batch.sequence_ids,
                rollouts=n_groups,
                return_trajectory=True,
            )
            assert out.trajectory is not None
            return out.trajectory
        # Sequences of their own, next to each other, with random numbers of their own.
        ids = (
            batch.sequence_ids[:, None] + torch.arange(n_groups, device=device) * batch.global_size
        )
        out = model.encoder(
            batch.item_seq.repeat_interleave(n_groups, dim=0),
            batch.lengths.repeat_interleave(n_groups),
            each.reshape(-1),
            None if initial_states is None else initial_states.flatten(0, 1),
            seed=seed,
            sequence_ids=ids.reshape(-1),
            return_trajectory=True,
        )
        trajectory = out.trajectory
        assert trajectory is not None
        return trajectory.reshape(size, n_groups, *trajectory.shape[1:])
