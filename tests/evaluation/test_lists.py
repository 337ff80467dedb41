"""What lists of the best items hold, against lists made one by one; errors of means against NumPy's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.data import load_dataset
from lares.errors import ConfigError
from lares.evaluation import evaluate, metrics_from_ranks
from lares.metrics import METRICS

KS = (1, 4, 24, 100)  # of 25 items: as many as are left of the shortest history, and more


@pytest.fixture(scope="module")
def model_and_data(interactions: Path):
    dataset = load_dataset(interactions)
    torch.manual_seed(0)
    config = LaresConfig(dataset.vocabulary.n_items, max_length=8, d_model=16, d_ff=24)
    return LaresModel(config), dataset


@pytest.mark.parametrize("remove_history", [False, True])
def test_coverage_and_repeats_are_those_of_recommend(model_and_data, remove_history: bool) -> None:
    model, dataset = model_and_data
    test, n_items = dataset.test, model.config.n_items - 1
    found = evaluate(
        model,
        test,
        depths=[2],
        ks=KS,
        metrics=METRICS,
        errors=True,
        remove_history=remove_history,
        batch_size=7,
    )[2]
    histories = [test.items[a:b].tolist() for a, b in zip(test.starts, test.ends, strict=True)]
    lists = model.recommend_rows(histories, n_items, remove_history=remove_history, num_steps=2)
    for k in KS:
        cut = [best[:k] for best in lists]
        assert found[f"coverage@{k}"] == len(set().union(*cut)) / n_items
        shares = [
            len(set(best) & set(history)) / len(best)
            for best, history in zip(cut, histories, strict=True)
        ]
        assert found[f"repeats@{k}"] == pytest.approx(np.mean(shares))
        error = np.std(shares, ddof=1) / len(shares) ** 0.5
        assert found[f"repeats@{k}_error"] == pytest.approx(error, abs=1e-12)
    assert (found["repeats@4"] == 0) == remove_history
    assert not any(name.startswith("coverage") and name.endswith("_error") for name in found)


def test_recall_and_ndcg_are_what_is_given_unasked(model_and_data) -> None:
    model, dataset = model_and_data
    usual = evaluate(model, dataset.test, depths=[2], ks=(5,))[2]
    assert set(usual) == {"recall@5", "ndcg@5"}
    more = evaluate(model, dataset.test, depths=[2], ks=(5,), metrics=METRICS)[2]
    assert {name: more[name] for name in usual} == usual
    assert set(more) == {f"{name}@5" for name in METRICS}
    with pytest.raises(ConfigError, match="metrics is 'map'"):
        evaluate(model, dataset.test, depths=[2], metrics=["map"])
    with pytest.raises(ConfigError, match="metrics"):
        evaluate(model, dataset.test, depths=[2], metrics=[])


def test_errors_of_means() -> None:
    ranks = torch.tensor([0, 4, 5, 100])
    found = metrics_from_ranks(ranks, (10,), ("recall", "ndcg", "mrr"), errors=True)
    values = {
        "recall": [1, 1, 1, 0],
        "ndcg": [1, 1 / math.log2(6), 1 / math.log2(7), 0],
        "mrr": [1, 1 / 5, 1 / 6, 0],
    }
    for name, each in values.items():
        assert found[f"{name}@10"] == pytest.approx(np.mean(each))
        assert found[f"{name}@10_error"] == pytest.approx(np.std(each, ddof=1) / 2)
    assert metrics_from_ranks(ranks[:1], (5,), ("mrr",), errors=True) == {
        "mrr@5": 1.0,
        "mrr@5_error": 0.0,
    }


def test_a_depth_asked_for_twice_is_counted_once(model_and_data) -> None:
    model, dataset = model_and_data
    once, twice = (
        evaluate(model, dataset.test, depths=depths, ks=(4,), metrics=METRICS, errors=True)
        for depths in ([2], [2, 2])
    )
    assert once == twice
