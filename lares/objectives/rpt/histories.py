"""Post-training on chosen targets of whole histories.

As :class:`lares.objectives.rpt.prefixes.RptObjective`, but a rollout encodes a window once for all its
targets: its states after every step are read where targets are predicted. Targets of a window share
dropout and noise of a rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lares.model.model import LaresModel
from lares.model.packed import PackedHistories
from lares.objectives.rpt.losses import RptLossesOf


@dataclass(frozen=True)
class WindowRptBatch:
    """Windows of one process, on the training device: ``W`` with ``P`` targets.

    Attributes:
        windows: (W,) that draw by their numbers in the batch of all processes.
        rows: (P,) row of each target's prefix among the packed items of the windows.
        targets: (P,) item ids.
        n_windows, global_size: windows and targets in the batch of all processes.
    """

    windows: PackedHistories
    rows: Tensor
    targets: Tensor
    n_windows: int
    global_size: int


class WindowRptObjective(RptLossesOf[WindowRptBatch]):
    """The objective on windows; arguments as of :class:`lares.objectives.rpt.losses.RptLossesOf`."""

    def encode(
        self,
        model: LaresModel,
        batch: WindowRptBatch,
        depths: Sequence[int],
        seed: int,
        initial_states: Tensor | None,
        shares: bool,
    ) -> Tensor:
        """States (P, G, T_max, d) at every target after every step of every rollout.

        Each rollout is an encoding of its own, also where those of a window could share the
        pre-block's output: that is a part of the recurrence's cost.
        """
        if initial_states is not None:
            raise ValueError("initial states of windows cannot be given")
        n_groups, size = len(depths), len(batch.windows)
        device = batch.targets.device
        each = torch.tensor(depths, device=device).repeat_interleave(size)
        first_ids = torch.arange(n_groups, device=device).repeat_interleave(size) * batch.n_windows
        n_rows = batch.windows.layout.n_rows
        rows = batch.rows[:, None] + torch.arange(n_groups, device=device) * n_rows
        streams = batch.windows.layout.streams.repeat(n_groups) + first_ids
        states = model.encoder.token_states(
            batch.windows.repeated(n_groups, streams),
            None,
            range(1, max(depths) + 1),
            each,
            seed=seed,
        )
        return torch.stack([after[rows] for after in states], dim=2)
