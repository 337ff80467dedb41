"""Evaluation of a model on a split: all test depths from one pass over the trajectory.

Which initial states samples start from is a choice (``states``): ``shared`` is what a model that serves
does, one for all histories, so that a sample's rank depends on the sample alone; ``drawn`` is what the
authors do, one for each row of the split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lares.data.batches import pack
from lares.data.split import Split
from lares.errors import ConfigError
from lares.evaluation.lists import ListStatistics
from lares.evaluation.ranking import DEFAULT_KS, catalogue_target_ranks, metrics_from_ranks
from lares.metrics import USUAL, chosen_metrics, wants_lists
from lares.model.config import EVALUATION_STATES, MOST_SEED
from lares.model.histories import elements
from lares.model.model import LaresModel
from lares.model.modes import evaluating
from lares.model.packed import PackedHistories
from lares.model.seen import seen_items
from lares.model.streams import batches, chunk_of, chunk_seed
from lares.plain import one_of, whole
from lares_kernels.spec.noise import MAX_SEQUENCES

_DEPTHS = "reasoning depths"


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
    lists: Mapping[int, ListStatistics] | None = None,
) -> dict[int, Tensor]:
    """Rank of every sample's target at every depth: {depth: (S,) int64 on the model's device}.

    Args:
        model, split, depths, batch_size, remove_history, seed, states: as in :func:`evaluate`.
        first_id: with states ``drawn``, number of the split's first sample, where it is a part of a
            larger one. Samples draw as :mod:`lares.model.streams` says.
        lists: counts the lists of the best items of every depth; None makes no lists.

    Raises:
        ValueError: the depths do not fit the model, the split is empty, or scores are NaN.
    """
    one_of("states", states, EVALUATION_STATES)
    if len(split) == 0:
        raise ValueError("there is no sample to evaluate")
    batch_size = whole("batch_size", batch_size, 1)
    first_id = whole("first_id", first_id, 0)
    depths = [whole("depth", depth, 0) for depth in elements("depths", depths, _DEPTHS)]
    seed = whole("seed", model.seed if seed is None else seed, 0, MOST_SEED)
    recurrent = model.config.is_recurrent
    if not depths or (min(depths) < 1 if recurrent else set(depths) != {0}):
        allowed = (
            "whole numbers of at least 1" if recurrent else "(0,): the model has no recurrence"
        )
        raise ValueError(f"depths are {tuple(depths)}; they must be {allowed}")
    device = model.device
    ranks = {depth: torch.empty(len(split), dtype=torch.int64, device=device) for depth in depths}
    needs_histories = remove_history or lists is not None
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
            for rows, seen in _histories(split, indices, device, needs_histories):
                excluded = seen if remove_history else None
                for depth in ranks:  # one asked for twice has one list
                    last = out.last if out.trajectory is None else out.trajectory[:, depth - 1]
                    ranks[depth][first + rows] = catalogue_target_ranks(
                        model, last[rows], targets[rows], excluded
                    )
                    if lists is not None:
                        assert seen is not None  # they need it
                        lists[depth].add(model, last[rows], seen, excluded)
    return ranks


def _histories(
    split: Split, indices: NDArray[np.int64], device: torch.device, needed: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Give the samples ``indices`` in groups: (n,) places among them, and (n, E) items of their
    histories, where they are needed."""
    if not needed:
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
    metrics: Sequence[str] = USUAL,
    errors: bool = False,
) -> dict[int, dict[str, float]]:
    """Metrics over the full catalogue, by reasoning depth: Recall and NDCG unless more are asked for.

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
        metrics: of ``recall``, ``ndcg``, ``mrr``, ``coverage`` (the share of the catalogue that is in
            any list of the ``k`` best items) and ``repeats`` (the share of a list that the sample's
            history holds, averaged over samples). The latter two make the lists, which with very many
            items takes about as long again.
        errors: add the standard error of every mean, ``recall@10_error`` of ``recall@10``; coverage is
            no mean, and has none.

    Returns:
        {depth: {"recall@10": ..., "ndcg@10": ...}}.

    Raises:
        ValueError: the depths do not fit the model, the split is empty, scores are NaN, or there is no
            such metric.
    """
    _, found = measured(
        model,
        split,
        depths=depths,
        ks=ks,
        batch_size=batch_size,
        remove_history=remove_history,
        seed=seed,
        states=states,
        metrics=metrics,
        errors=errors,
    )
    return found


def measured(
    model: LaresModel,
    split: Split,
    *,
    depths: Sequence[int],
    ks: Sequence[int],
    metrics: Sequence[str],
    errors: bool,
    **options: Any,
) -> tuple[dict[int, Tensor], dict[int, dict[str, float]]]:
    """Return ranks as of :func:`depth_ranks` and metrics as of :func:`evaluate`, from one pass.

    Args:
        model, split, depths, ks, metrics, errors: as in :func:`evaluate`.
        options: those of :func:`depth_ranks`.

    Raises:
        ValueError: as :func:`evaluate`.
    """
    asked = chosen_metrics(metrics)
    depths, ks = elements("depths", depths, _DEPTHS), elements("ks", ks, "cut-offs")
    if not ks:
        raise ConfigError("ks is empty; give cut-offs, such as 5 and 10")
    lists = None
    if wants_lists(asked):
        n_items = model.config.n_items - 1
        lists = {depth: ListStatistics(n_items, ks) for depth in depths}
    ranks = depth_ranks(model, split, depths, lists=lists, **options)
    return ranks, {
        depth: metrics_from_ranks(found, ks, asked, errors)
        | ({} if lists is None else lists[depth].found(asked, errors))
        for depth, found in ranks.items()
    }
