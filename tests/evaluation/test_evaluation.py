"""Ranks, metrics, all depths from one pass."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.data import load_dataset
from lares.evaluation import (
    evaluate,
    evaluate_popularity,
    metrics_from_ranks,
    popularity_tenths,
    target_ranks,
)
from lares.evaluation.evaluate import depth_ranks
from lares.evaluation.ranking import catalogue_target_ranks


def test_ranks_count_items_that_score_at_least_as_high() -> None:
    scores = torch.tensor([[9.0, 0.5, 0.7, 0.5, 0.1], [9.0, 1.0, 1.0, 1.0, 1.0]])
    ranks = target_ranks(scores, torch.tensor([3, 2]))
    assert ranks.tolist() == [2, 3]  # padding never ranks; ties count against the target
    excluded = torch.tensor([[2, 0], [2, 4]])
    assert target_ranks(scores, torch.tensor([3, 2]), excluded).tolist() == [1, 2]


def test_ranks_against_sorting() -> None:
    torch.manual_seed(0)
    scores = torch.randn(50, 200)
    targets = torch.randint(1, 200, (50,))
    for row, rank in enumerate(target_ranks(scores, targets).tolist()):
        order = [i for i in scores[row].argsort(descending=True).tolist() if i]
        assert order[rank] == targets[row]


def test_nan_scores_are_refused() -> None:
    scores = torch.zeros(3, 4)
    scores[1, 2] = float("nan")
    with pytest.raises(ValueError, match="scores of sequence 1 are NaN"):
        target_ranks(scores, torch.tensor([1, 1, 1]))


def test_metrics() -> None:
    found = metrics_from_ranks(torch.tensor([0, 4, 5, 100]), ks=(5, 10))
    assert found["recall@5"] == 0.5
    assert found["recall@10"] == 0.75
    assert found["ndcg@5"] == pytest.approx((1 + 1 / math.log2(6)) / 4)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(6) + 1 / math.log2(7)) / 4)


@pytest.fixture
def model_and_data(interactions: Path):
    dataset = load_dataset(interactions)
    torch.manual_seed(0)
    config = LaresConfig(dataset.vocabulary.n_items, max_length=8, d_model=16, d_ff=24)
    return LaresModel(config), dataset


def test_all_depths_come_from_one_pass(model_and_data, monkeypatch) -> None:
    model, dataset = model_and_data
    depths = [1, 3, 6]
    apart = {d: evaluate(model, dataset.test, depths=[d], seed=3)[d] for d in depths}
    calls = []
    forward = type(model.encoder).forward

    def counted(self, *args, **options):
        calls.append(args[2])
        return forward(self, *args, **options)

    monkeypatch.setattr(type(model.encoder), "forward", counted)
    together = evaluate(model, dataset.test, depths=depths, seed=3)
    assert calls == [6]  # one batch, one encoding, of the greatest depth
    assert together == apart


def test_batch_size_does_not_matter(model_and_data) -> None:
    model, dataset = model_and_data
    whole = depth_ranks(model, dataset.test, [2], seed=1)[2]
    assert torch.equal(depth_ranks(model, dataset.test, [2], seed=1, batch_size=7)[2], whole)


def test_history_can_be_left_out(model_and_data) -> None:
    model, dataset = model_and_data
    kept = depth_ranks(model, dataset.test, [2])[2]
    removed = depth_ranks(model, dataset.test, [2], remove_history=True)[2]
    assert (removed <= kept).all()
    assert (removed < kept).any()


def test_depths_must_fit(model_and_data) -> None:
    model, dataset = model_and_data
    with pytest.raises(ValueError, match="at least 1"):
        evaluate(model, dataset.test, depths=[0, 2])
    plain = LaresModel(LaresConfig(dataset.vocabulary.n_items, d_model=16, n_core_layers=0))
    assert set(evaluate(plain, dataset.test, depths=[0])) == {0}
    with pytest.raises(ValueError, match="no recurrence"):
        evaluate(plain, dataset.test, depths=[1])


def test_depths_and_cut_offs_are_lists(model_and_data) -> None:
    model, dataset = model_and_data
    with pytest.raises(ValueError, match="depths is 2; it must be a list of reasoning depths"):
        evaluate(model, dataset.test, depths=2)
    with pytest.raises(ValueError, match="ks is 10; it must be a list of cut-offs"):
        evaluate(model, dataset.test, depths=[2], ks=10)
    with pytest.raises(ValueError, match="ks is empty"):
        evaluate(model, dataset.test, depths=[2], ks=[])
    options = {"metrics": ("recall", "repeats")}
    listed = evaluate(model, dataset.test, depths=[1, 2], ks=[3, 5], **options)
    assert evaluate(model, dataset.test, depths=iter([1, 2]), ks=iter([3, 5]), **options) == listed


def test_popularity(interactions: Path) -> None:
    dataset = load_dataset(interactions)
    counts = dataset.item_counts()
    hits = 0
    for start, end in zip(dataset.test.starts, dataset.test.ends, strict=True):
        target = dataset.test.items[end]
        others = [i for i in range(1, len(counts)) if i != target]
        hits += sum(counts[i] >= counts[target] for i in others) < 5
        assert end > start
    found = evaluate_popularity(dataset, dataset.test, ks=(5,))
    assert found["recall@5"] == pytest.approx(hits / len(dataset.test))
    without = evaluate_popularity(dataset, dataset.test, ks=(5,), remove_history=True)
    assert without["recall@5"] >= found["recall@5"]


def test_popularity_tenths(interactions: Path) -> None:
    dataset = load_dataset(interactions)
    tenths = popularity_tenths(dataset, dataset.test)
    counts = dataset.item_counts()[dataset.test.items[dataset.test.ends]]
    for tenth in range(1, 10):
        rarer, others = counts[tenths < tenth], counts[tenths >= tenth]
        assert not len(rarer) or not len(others) or rarer.max() < others.min()
        assert len(rarer) <= np.ceil(len(counts) * tenth / 10) + (counts == rarer.max()).sum()


@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_ranks_without_a_matrix_are_those_of_the_matrix(scores: str) -> None:
    torch.manual_seed(2)
    model = LaresModel(LaresConfig(500, max_length=8, d_model=16, d_ff=24, scores=scores)).double()
    states = torch.randn(40, 16, dtype=torch.float64)
    targets = torch.randint(1, 500, (40,))
    excluded = torch.randint(0, 500, (40, 30))
    excluded[3, 4] = targets[3]  # it ranks all the same
    for left_out in (None, excluded):
        found = catalogue_target_ranks(model, states, targets, left_out)
        wanted = target_ranks(model.score_states(states), targets, left_out)
        assert torch.equal(found, wanted)
    states[7, 0] = float("nan")
    with pytest.raises(ValueError, match="scores of sequence 7 are NaN"):
        catalogue_target_ranks(model, states, targets)
