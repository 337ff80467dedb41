"""Post-training with a sequence for every rollout of a sample, as published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lares.model.encoder import EncoderOutput
from lares.model.model import LaresModel
from lares.model.packed import PackedHistories
from lares.objectives.rpt.losses import RptLossesOf


class RptBatch(NamedTuple):
    """Samples of one step, or this process's part of them, on the training device.

    Attributes:
        histories: (B,) that draw by their numbers in the batch of all processes.
        targets: (B,) item ids.
        global_size: samples in the batch of all processes.
    """

    histories: PackedHistories
    targets: Tensor
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
        each = torch.tensor(depths, dtype=torch.int32, device=device)
        if shares:
            out: EncoderOutput = model.encoder(
                batch.histories,
                None,
                each.expand(size, -1),
                initial_states,
                seed=seed,
                rollouts=n_groups,
                return_trajectory=True,
            )
            assert out.trajectory is not None
            return out.trajectory
        # Sequences of their own, one rollout of all after the other, with random numbers of their own.
        offsets = torch.arange(n_groups, device=device) * batch.global_size
        streams = offsets[:, None] + batch.histories.layout.streams
        out = model.encoder(
            batch.histories.repeated(n_groups, streams.flatten()),
            None,
            each.repeat_interleave(size),
            None if initial_states is None else initial_states.transpose(0, 1).flatten(0, 1),
            seed=seed,
            return_trajectory=True,
        )
        assert out.trajectory is not None
        rollouts: Tensor = out.trajectory.unflatten(0, (n_groups, size))
        return rollouts.transpose(0, 1)
