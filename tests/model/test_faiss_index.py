"""Recommendations through an index of FAISS."""

from __future__ import annotations

import sys

import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.errors import ConfigError
from lares.integrations.faiss_index import FaissIndex


def make(n_items: int = 2001, scores: str = "dot") -> LaresModel:
    torch.manual_seed(0)
    config = LaresConfig(n_items=n_items, max_length=6, d_model=16, n_heads=2, scores=scores)
    return LaresModel(config).eval()


HISTORIES = [[1, 2, 3], [9, 9, 1500, 4, 2, 2000, 1, 77], [5]]


@pytest.mark.parametrize("scores", ["dot", "cos"])
def test_with_all_lists_it_finds_what_exact_search_finds(scores: str) -> None:
    pytest.importorskip("faiss")
    model = make(scores=scores)
    index = FaissIndex(model, probes=10_000)
    for remove_seen in (True, False):
        found = model.recommend(HISTORIES, 12, remove_seen=remove_seen, index=index)
        assert found == model.recommend(HISTORIES, 12, remove_seen=remove_seen)


def test_one_list_alone_finds_less_but_never_what_was_seen() -> None:
    pytest.importorskip("faiss")
    model = make()
    found = model.recommend(HISTORIES, 300, index=FaissIndex(model, probes=1))
    for history, items in zip(HISTORIES, found, strict=True):
        assert 0 < len(items) < 300
        assert len(set(items)) == len(items)
        assert not set(items) & set(history)


def test_fewer_items_than_are_wanted() -> None:
    pytest.importorskip("faiss")
    model = make(6)
    index = FaissIndex(model)
    assert model.recommend([[1, 2, 5]], 5, index=index) == model.recommend([[1, 2, 5]], 5)


def test_what_does_not_fit() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ConfigError, match=r"lists is 2001; it must be in 1\.\.2000"):
        FaissIndex(make(), lists=2001)
    with pytest.raises(ConfigError, match="probes is 0"):
        FaissIndex(make(), probes=0)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'lares-kernels\[faiss\]'"):
        FaissIndex(make())
