"""Evaluation of a model on a split: all test depths from one pass over the trajectory.

Which initial states samples start from is a choice (``states``): ``shared`` is what a model that serves
does, one for all histories, so that a sample's rank depends on the sample alone; ``drawn`` is what the
authors do, one for each row of the split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lares.data.batches import pack
from lares.data.split import Split
from lares.evaluation.ranking import DEFAULT_KS, catalogue_target_ranks, metrics_from_ranks
from lares.model.config import EVALUATION_STATES, MOST_SEED
from lares.model.model import LaresModel
from lares.model.modes import evaluating
from lares.model.packed import PackedHistories
from lares.model.seen import seen_items
from lares.model.streams import batches, chunk_of, chunk_seed
from lares.plain import one_of, whole
from lares_kernels.spec.noise import MAX_SEQUENCES


@torch.no_grad()
def depth_ranks(
    model: LaresModel,
    split: Split,
    depths: Sequence[int],
    *,
    batch_size: int = 512,
    remove_history: bool = False,
    seed: int | None = None,
    states: str = "shared",
    first_id: int = 0,
) -> dict[int, Tensor]:
    """Rank of every sample's target at every depth: {depth: (S,) int64 on the model's device}.

    Args:
        model, split, depths, batch_size, remove_history, seed, states: as in :func:`evaluate`.
        first_id: with states ``drawn``, number of the split's first sample, where it is a part of a
            larger one. Samples draw as :mod:`lares.model.streams` says.

    Raises:
        ValueError: the depths do not fit the model, the split is empty, or scores are NaN.
    """
    one_of("states", states, EVALUATION_STATES)
    if len(split) == 0:
        raise ValueError("there is no sample to evaluate")
    batch_size = whole("batch_size", batch_size, 1)
    first_id = whole("first_id", first_id, 0)
    depths = [whole("depth", depth, 0) for depth in depths]
    seed = whole("seed", model.seed if seed is None else seed, 0, MOST_SEED)
    recurrent = model.config.is_recurrent
    if not depths or (min(depths) < 1 if recurrent else set(depths) != {0}):
        allowed = (
            "whole numbers of at least 1" if recurrent else "(0,): the model has no recurrence"
        )
        raise ValueError(f"depths are {tuple(depths)}; they must be {allowed}")
    device = model.device
    ranks = {depth: torch.empty(len(split), dtype=torch.int64, device=device) for depth in depths}
    drawn = states == "drawn"
    with evaluating(model):
        for first, end in batches(len(split), batch_size, first_id if drawn else 0):
            indices = np.arange(first, end)
            items, lengths, targets = (
                torch.from_numpy(part) for part in pack(split, indices, model.config.max_length)
            )
            targets = targets.to(device)
            numbers = first_id + indices if drawn else np.zeros_like(indices)
            streams = torch.from_numpy(numbers % MAX_SEQUENCES).to(device)
            out = model.encoder(
                PackedHistories.from_flat(model.config, items.to(device), lengths, streams),
                None,
                max(depths),
                seed=chunk_seed(seed, chunk_of(int(numbers[0]))),
                return_trajectory=True,
            )
            for rows, excluded in _excluded(split, indices, device, remove_history):
                for depth in depths:
                    last = out.last if out.trajectory is None else out.trajectory[:, depth - 1]
                    ranks[depth][first + rows] = catalogue_target_ranks(
                        model, last[rows], targets[rows], excluded
                    )
    return ranks


def _excluded(
    split: Split, indices: NDArray[np.int64], device: torch.device, remove_history: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Give the samples ``indices`` in groups: (n,) places among them, and items that do not rank."""
    if not remove_history:
        yield torch.arange(len(indices), device=device), None
        return
    histories = [split.items[split.starts[i] : split.ends[i]] for i in indices.tolist()]
    for rows, items in seen_items(histories):
        yield torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device)


def evaluate(
    model: LaresModel,
    split: Split,
    *,
    depths: Sequence[int],
    ks: Sequence[int] = DEFAULT_KS,
    batch_size: int = 512,
    remove_history: bool = False,
    seed: int | None = None,
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
        seed: of drawn initial states; None is the model's.
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
