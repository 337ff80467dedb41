"""Metrics of groups of samples, with how many samples there are and how far chance reaches."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lares.evaluation.ranking import metrics_from_ranks


def metrics_with_errors(ranks: Tensor, k: int) -> dict[str, float]:
    """Return how many ranks (S,) there are, Recall and NDCG at ``k``, and the standard error of each.

    Returns:
        ``samples``, ``recall@k``, ``recall@k_error``, ``ndcg@k``, ``ndcg@k_error``; of one sample the
        error is 0.
    """
    found: dict[str, float] = {"samples": len(ranks)}
    means = metrics_from_ranks(ranks, (k,))
    hits = (ranks < k).double()
    of_samples = {"recall": hits, "ndcg": hits / torch.log2(ranks.double() + 2.0)}
    for name, values in of_samples.items():
        found[f"{name}@{k}"] = means[f"{name}@{k}"]
        deviation = float(values.std()) if len(values) > 1 else 0.0
        found[f"{name}@{k}_error"] = deviation / math.sqrt(len(values))
    return found


def metrics_by_group(
    ranks: Tensor, groups: NDArray[np.int64], k: int
) -> dict[int, dict[str, float]]:
    """Return :func:`metrics_with_errors` of the samples of each group, by its number, ascending.

    Args:
        ranks: (S,) of the samples' targets.
        groups: (S,) number of the group that each sample is in.
        k: cut-off.
    """
    on_host = ranks.cpu()
    return {
        group: metrics_with_errors(on_host[torch.from_numpy(groups == group)], k)
        for group in np.unique(groups).tolist()
    }
