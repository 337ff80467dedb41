"""Recommendations through an index of FAISS."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from benchmarks.core.memory import peak_growth
from lares import LaresConfig, LaresModel
from lares.errors import ConfigError
from lares.integrations.faiss_index import FaissIndex, _among


def make(n_items: int = 2001, scores: str = "dot") -> LaresModel:
    torch.manual_seed(0)
    config = LaresConfig(n_items=n_items, max_length=6, d_model=16, n_heads=2, scores=scores)
    return LaresModel(config).eval()


HISTORIES = [[1, 2, 3], [9, 9, 1500, 4, 2, 2000, 1, 77], [5]]


@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_with_all_lists_it_finds_what_exact_search_finds(scores: str) -> None:
    pytest.importorskip("faiss")
    model = make(scores=scores)
    index = FaissIndex(model, probes=10_000)
    for remove_history in (True, False):
        found = model.recommend(HISTORIES, 12, remove_history=remove_history, index=index)
        assert found == model.recommend(HISTORIES, 12, remove_history=remove_history)


def test_one_list_alone_finds_less_but_never_what_was_seen() -> None:
    pytest.importorskip("faiss")
    model = make()
    found = model.recommend(HISTORIES, 300, index=FaissIndex(model, probes=1))
    for history, items in zip(HISTORIES, found, strict=True):
        assert 0 < len(items) < 300
        assert len(set(items)) == len(items)
        assert not set(items) & set(history)


def test_what_is_seen_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    for n_ids, n_others in ((7, 1), (5, 9), (40, 30), (1, 200)):
        ids, others = (
            torch.randint(-1, 50, (6, n), generator=generator) for n in (n_ids, n_others)
        )
        wanted = (ids[:, :, None] == others[:, None, :]).any(dim=2)
        assert torch.equal(_among(ids, others), wanted)


def test_memory_grows_with_a_history_not_with_its_square() -> None:
    """An index that finds all items, for histories of 20,000 of them: squared that is 400 MB each."""
    pytest.importorskip("faiss")
    n_items, longest = 40_001, 20_000
    model = LaresModel(
        LaresConfig(n_items=n_items, max_length=3, d_model=4, n_heads=2, d_ff=4)
    ).eval()
    index = FaissIndex(model, lists=2, probes=2)
    histories = [list(range(1 + start, 1 + start + longest)) for start in (0, 5_000)]
    found: list[list[list[int]]] = []
    taken = peak_growth(lambda: found.append(model.recommend(histories, 5, index=index)))
    assert found == [model.recommend(histories, 5)]
    assert taken < 200e6


def test_fewer_items_than_are_wanted() -> None:
    pytest.importorskip("faiss")
    model = make(6)
    index = FaissIndex(model)
    assert model.recommend([[1, 2, 5]], 5, index=index) == model.recommend([[1, 2, 5]], 5)


def test_what_does_not_fit() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ConfigError, match=r"lists is 2001; it must be a whole number in 1\.\.2000"):
        FaissIndex(make(), lists=2001)
    for wrong in (True, 2.0, 0, "3"):
        with pytest.raises(ConfigError, match=f"lists is {wrong!r}"):
            FaissIndex(make(), lists=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"probes is {wrong!r}"):
            FaissIndex(make(), probes=wrong)  # type: ignore[arg-type]
    FaissIndex(make(), lists=np.int64(3), probes=np.int32(2))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="probes is 0"):
        FaissIndex(make(), probes=0)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'lares-kernels\[faiss\]'"):
        FaissIndex(make())
