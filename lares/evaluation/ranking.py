"""Ranks of targets among the whole catalogue, and the metrics made of them.

The rule for ties: an item with exactly the target's score ranks before it. A model that scores
everything alike therefore gets nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lares.errors import WeightsError
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


def metrics_from_ranks(ranks: Tensor, ks: Sequence[int] = DEFAULT_KS) -> dict[str, float]:
    """Recall and NDCG at each ``k``, averaged over ranks (B,).

    With one target a sequence, Recall@k is the share of ranks below ``k``, and NDCG@k the mean of
    ``1 / log2(rank + 2)`` over those (0 for the others).
    """
    gains = 1.0 / torch.log2(ranks.double() + 2.0)
    found: dict[str, float] = {}
    for k in (whole("k", k, 1) for k in ks):
        hit = ranks < min(k, _MOST_RANK)
        found[f"recall@{k}"] = float(hit.double().mean())
        found[f"ndcg@{k}"] = float((gains * hit).mean())
    return found
