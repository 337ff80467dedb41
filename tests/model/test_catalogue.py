"""The catalogue of a model: rows in and out, 0 for no item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lares import LaresConfig, LaresModel


@pytest.fixture(params=["dot", "cosine"])
def model(request: pytest.FixtureRequest) -> LaresModel:
    torch.manual_seed(0)
    return LaresModel(LaresConfig(n_items=9, d_model=16, d_ff=16, scores=request.param)).eval()


def test_top_k_and_ranks_are_of_rows(model: LaresModel) -> None:
    states = torch.randn(3, 16)
    scores = model.score_states(states).detach()
    scores[:, 0] = -torch.inf
    best = scores.argsort(1, descending=True)[:, :8]
    catalogue = model.catalogue
    assert torch.equal(catalogue.top_k(states, 8), best)
    for place in range(8):
        assert catalogue.ranks(states, best[:, place]).tolist() == [place] * 3


def test_excluded_rows_are_left_out_and_zero_is_none(model: LaresModel) -> None:
    states = torch.randn(2, 16)
    best = model.catalogue.top_k(states, 8)
    excluded = torch.stack([best[0, [0, 2, 1, 3, 4]], torch.tensor([0, 0, 0, 0, 0])])
    found = model.catalogue.top_k(states, 5, excluded)
    assert found[0].tolist() == [*best[0, 5:].tolist(), 0, 0]
    assert torch.equal(found[1], best[1, :5])
    ranks = model.catalogue.ranks(states, best[:, 5], excluded)
    assert ranks.tolist() == [0, 5]
    assert model.catalogue.ranks(states, best[:, 2], excluded).tolist() == [0, 2]


def test_an_index_is_asked_in_its_own_numbers(model: LaresModel) -> None:
    class Index:
        def search(self, queries: Tensor, k: int, excluded: Tensor | None) -> Tensor:
            assert excluded is not None
            assert excluded.tolist() == [[2, -1]]
            return torch.tensor([[7, 0, -1]])

    excluded = torch.tensor([[3, 0]])
    found = model.catalogue.top_k(torch.randn(1, 16), 3, excluded, Index())
    assert found.tolist() == [[8, 1, 0]]


def test_scores_beside_rows_and_a_catalogue_of_some_rows(model: LaresModel) -> None:
    states = torch.randn(3, 16)
    scores = model.score_states(states).detach()
    best = model.catalogue.best(states, 8, torch.tensor([[4], [0], [0]]))
    assert best.rows[0, -1] == 0
    assert best.scores[0, -1] == -torch.inf
    found = best.rows > 0
    assert torch.allclose(best.scores[found], scores.gather(1, best.rows)[found], atol=1e-6)
    rows = torch.tensor([2, 5, 7])
    some = model.catalogue.of_rows(rows).best(states, 3)
    assert torch.equal(some.rows, scores[:, rows].argsort(1, descending=True) + 1)
    assert model.catalogue.of_rows(rows[:0]).ranked.shape == (0, 16)


def test_states_of_rows_are_those_that_lists_are_made_of(model: LaresModel) -> None:
    histories = [[1, 2, 3] * 30, [5], [8, 4]]
    states = model.states_of_rows(
        [histories[0], *map(torch.Tensor.numpy, map(torch.tensor, histories[1:]))]
    )
    best = model.catalogue.top_k(states, 4)
    assert best.tolist() == model.recommend_rows(histories, 4, remove_history=False)
    deeper = model.states_of_rows(histories, num_steps=2, seed=3)
    found = model.recommend_rows(histories, 4, remove_history=False, num_steps=2, seed=3)
    assert model.catalogue.top_k(deeper, 4).tolist() == found


def test_states_of_spans_are_those_of_lists(model: LaresModel) -> None:
    """Spans may overlap, and be longer than the window."""
    items = np.array([5, 8, 4, *range(1, 9)] * 10, np.int32)
    starts, stops = np.array([0, 2, 1, 0]), np.array([1, 90, 3, 110])
    histories = [items[start:stop] for start, stop in zip(starts, stops, strict=True)]
    expected = model.states_of_rows(histories, 2, 3)
    assert torch.allclose(model.states_of_spans(items, starts, stops, 2, 3), expected, atol=1e-6)
