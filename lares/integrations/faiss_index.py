"""An inverted-file index of FAISS over the catalogue, for more items than should be scored each time.

FAISS (Johnson, Douze and Jegou, arXiv 1702.08734) sorts items into lists around centroids and scores
those of the lists nearest to a query: part of the catalogue, so that the best item may be missed. It
is an optional package: ``pip install 'lares-kernels[faiss]'``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lares.errors import ConfigError
from lares.model.model import LaresModel
from lares.plain import whole

_ITEMS_A_CENTROID = 64  # that k-means sees; FAISS warns below 39


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            f"the index needs FAISS, which cannot be imported ({error}); "
            "pip install 'lares-kernels[faiss]' installs it"
        ) from error
    return faiss


def _among(ids: Tensor, others: Tensor) -> Tensor:
    """Which of ``ids`` (B, W) are among their row's ``others`` (B, H), in memory of that size."""
    ordered = others.sort(dim=1).values
    places = torch.searchsorted(ordered, ids).clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, places) == ids


class FaissIndex:
    """A copy of a model's items, ready to be searched; build it again after training went on.

    Args:
        model: whose catalogue and way of scoring (dot or cosine) to take.
        lists: that items are sorted into; None is ``4 sqrt(V)``, fewer for small catalogues.
        probes: lists that a search looks into. More find more of the best items, and take longer.

    Attributes:
        index: FAISS's own.

    Raises:
        ConfigError: FAISS is not installed, or ``lists`` or ``probes`` does not fit.
    """

    def __init__(self, model: LaresModel, lists: int | None = None, probes: int = 32) -> None:
        faiss = _faiss()
        items = model.catalogue.ranked.detach().float().cpu()
        n_items, width = items.shape
        most = max(1, n_items // 39)
        lists = min(most, round(4 * math.sqrt(n_items))) if lists is None else lists
        lists = whole("lists", lists, 1, n_items)
        probes = whole("probes", probes, 1)
        self._cosine = model.catalogue.scores == "cosine"
        self._n_items = n_items
        if self._cosine:
            items = functional.normalize(items, dim=-1)
        centroids = faiss.IndexFlatIP(width)
        self.index = faiss.IndexIVFFlat(centroids, width, lists, faiss.METRIC_INNER_PRODUCT)
        self.index.cp.max_points_per_centroid = _ITEMS_A_CENTROID
        self.index.train(items.numpy())
        self.index.add(items.numpy())
        self.index.nprobe = min(probes, lists)

    def search(self, queries: Tensor, k: int, excluded: Tensor | None) -> Tensor:
        """Ids (B, k) as :class:`lares.model.ItemIndex` has them, found on the CPU.

        Of the items in the lists that are looked into they are the best; -1 where these lists hold
        fewer than ``k`` that the row does not exclude.
        """
        # As many more as a row can exclude, to have k left.
        wanted = k if excluded is None else min(self._n_items, k + excluded.shape[1])
        states = queries.detach().float().cpu()
        if self._cosine:
            states = functional.normalize(states, dim=-1)
        ids = torch.from_numpy(self.index.search(states.contiguous().numpy(), wanted)[1])
        if excluded is not None and excluded.shape[1]:
            ids = ids.masked_fill(_among(ids, excluded.cpu()), -1)
            # What is left comes first, in its order.
            ids = ids.gather(1, (ids < 0).int().argsort(dim=1, stable=True))
        return ids[:, :k].to(queries.device)
