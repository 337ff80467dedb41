"""Evaluation of a model on a split: all test depths from one pass over the trajectory.

Which initial states samples start from is a choice (``states``): ``shared`` is what a model that serves
does, one for all histories, so that a sample's rank depends on the sample alone; ``drawn`` is what the
authors do, one for each row of the split.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lares.config import EVALUATION_STATES
from lares.data.batches import collate
from lares.data.dataset import Split
from lares.errors import ConfigError
from lares.evaluation.ranking import DEFAULT_KS, catalogue_target_ranks, metrics_from_ranks
from lares.model import LaresModel


@torch.no_grad()
def depth_ranks(
    model: LaresModel,
    split: Split,
    depths: Sequence[int],
    *,
    batch_size: int = 512,
    remove_history: bool = False,
    seed: int = 0,
    states: str = "shared",
    first_id: int = 0,
) -> dict[int, Tensor]:
    """Rank of every sample's target at every depth: {depth: (S,) int64 on the model's device}.

    Args:
        model, split, depths, batch_size, remove_history, seed, states: as in :func:`evaluate`.
        first_id: with states ``drawn``, number of the split's first sample, where it is a part of a
            larger one.

    Raises:
        ValueError: the depths do not fit the model, the split is empty, or scores are NaN.
    """
    if states not in EVALUATION_STATES:
        allowed = ", ".join(EVALUATION_STATES)
        raise ConfigError(f"states is {states!r}; it must be one of {allowed}")
    if len(split) == 0:
        raise ValueError("there is no sample to evaluate")
    recurrent = model.config.is_recurrent
    if not depths or (min(depths) < 1 if recurrent else set(depths) != {0}):
        allowed = (
            "whole numbers of at least 1" if recurrent else "(0,): the model has no recurrence"
        )
        raise ValueError(f"depths are {tuple(depths)}; they must be {allowed}")
    device = model.device
    longest_history = int((split.ends - split.starts).max()) if remove_history else 0
    was_training = model.training
    model.eval()
    ranks: dict[int, list[Tensor]] = {depth: [] for depth in depths}
    try:
        for first in range(0, len(split), batch_size):
            indices = np.arange(first, min(first + batch_size, len(split)))
            item_seq, lengths, targets = (
                torch.from_numpy(part).to(device)
                for part in collate(split, indices, model.config.max_length)
            )
            excluded = None
            if remove_history:
                whole, _, _ = collate(split, indices, longest_history)
                excluded = torch.from_numpy(whole).to(device)
            streams = first_id + indices if states == "drawn" else np.zeros_like(indices)
            out = model.encoder(
                item_seq,
                lengths,
                max(depths),
                seed=seed,
                sequence_ids=torch.from_numpy(streams).to(device),
                return_trajectory=True,
            )
            for depth in depths:
                last = out.last if out.trajectory is None else out.trajectory[:, depth - 1]
                ranks[depth].append(catalogue_target_ranks(model, last, targets, excluded))
    finally:
        model.train(was_training)
    return {depth: torch.cat(parts) for depth, parts in ranks.items()}


def evaluate(
    model: LaresModel,
    split: Split,
    *,
    depths: Sequence[int],
    ks: Sequence[int] = DEFAULT_KS,
    batch_size: int = 512,
    remove_history: bool = False,
    seed: int = 0,
    states: str = "shared",
) -> dict[int, dict[str, float]]:
    """Recall and NDCG over the full catalogue, by reasoning depth.

    Args:
        model: on the device to run on; dropout is off during evaluation.
        split: samples.
        depths: test depths, from one pass of the greatest; ``(0,)`` for a model without recurrence.
        ks: cut-offs.
        batch_size: sequences a pass.
        remove_history: leave the items of a sample's whole history out of its ranking.
        seed: of drawn initial states.
        states: ``shared``: all samples start from one drawn state, as :meth:`LaresModel.recommend` has
            it; ``drawn``: each has its own, by its number in the split, as published.

    Returns:
        {depth: {"recall@10": ..., "ndcg@10": ...}}.

    Raises:
        ValueError: the depths do not fit the model, the split is empty, or scores are NaN.
    """
    ranks = depth_ranks(
        model,
        split,
        depths,
        batch_size=batch_size,
        remove_history=remove_history,
        seed=seed,
        states=states,
    )
    return {depth: metrics_from_ranks(found, ks) for depth, found in ranks.items()}
