"""Ranks of targets among the whole catalogue, and the metrics made of them.

The rule for ties: an item with exactly the target's score ranks before it. A model that scores
everything alike therefore gets nothing for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lares.errors import WeightsError
from lares.metrics import ERROR, USUAL
from lares.model.model import LaresModel
from lares.plain import whole

_MOST_RANK = 2**62
DEFAULT_KS = (5, 10, 20, 50)


def target_ranks(scores: Tensor, targets: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Rank of each target, 0 for the best.

    Args:
        scores: (B, V); row 0 of the catalogue (padding) never ranks.
        targets: (B,) int64 in ``1..V-1``.
        excluded: (B, E) int64 items that do not rank (a history), 0 where there is none. The target
            ranks even if it is among them.

    Returns:
        (B,) int64: how many other items score at least as high.

    Raises:
        WeightsError: (a ``ValueError``) a score is NaN; the message says of which row.
    """
    _require_numbers(torch.isnan(scores).any(dim=1))
    wanted = targets[:, None]
    ahead = scores >= scores.gather(1, wanted)
    ahead[:, 0] = False
    if excluded is not None:
        ahead.scatter_(1, excluded, False)
    ahead.scatter_(1, wanted, False)
    return ahead.sum(dim=1)


def catalogue_target_ranks(
    model: LaresModel, states: Tensor, targets: Tensor, excluded: Tensor | None = None
) -> Tensor:
    """:func:`target_ranks` of a model's scores, which are never a matrix.

    Args:
        model: whose catalogue it is.
        states: (B, d).
        targets, excluded: as in :func:`target_ranks`.

    Raises:
        WeightsError: (a ``ValueError``) a score is NaN; the message says of which row.
    """
    ranks = model.catalogue.ranks(states, targets, excluded)
    _require_numbers(ranks < 0)
    return ranks


def _require_numbers(bad: Tensor) -> None:
    """Raise ``WeightsError`` if there is a sequence with scores that are NaN: ``bad``, (B,) bool."""
    if bool(bad.any()):
        raise WeightsError(
            f"the scores of sequence {int(bad.nonzero()[0])} are NaN: weights are, or are too large "
            "for their precision"
        )


def metrics_from_ranks(
    ranks: Tensor,
    ks: Sequence[int] = DEFAULT_KS,
    metrics: Collection[str] = USUAL,
    errors: bool = False,
) -> dict[str, float]:
    """Recall, NDCG and MRR at each ``k``, averaged over ranks (B,), as far as they are asked for.

    With one target a sequence, Recall@k is the share of ranks below ``k``, NDCG@k the mean of
    ``1 / log2(rank + 2)`` and MRR@k that of ``1 / (rank + 1)`` over those (0 for the others).

    Args:
        ranks: 0 for the best.
        ks: cut-offs.
        metrics: ``recall``, ``ndcg`` and ``mrr``; others are passed over.
        errors: add each mean's standard error, ``recall@10_error`` of ``recall@10``: the unbiased
            deviation of the samples' numbers over the root of how many there are, 0 of a single one.
    """
    ranks_from_1 = ranks.double() + 1.0
    gains = {
        "recall": torch.ones_like(ranks_from_1),
        "ndcg": 1.0 / torch.log2(ranks_from_1 + 1.0),
        "mrr": 1.0 / ranks_from_1,
    }
    found: dict[str, float] = {}
    for k in (whole("k", k, 1) for k in ks):
        hit = ranks < min(k, _MOST_RANK)
        for name, gain in gains.items():
            if name in metrics:
                values = gain * hit
                found[f"{name}@{k}"] = float(values.mean())
                if errors:
                    found[f"{name}@{k}{ERROR}"] = _standard_error(values)
    return found


def _standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values (B,); 0 where there is one."""
    return float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
