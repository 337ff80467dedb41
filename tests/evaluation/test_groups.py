"""Samples in groups: by how long their history is, and what the metrics of a group are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lares.data.split import Split
from lares.evaluation.by_group import metrics_by_group, metrics_with_errors
from lares.evaluation.history_length import length_groups, lengths_of_group


def of_lengths(lengths: list[int]) -> Split:
    starts = np.zeros(len(lengths), dtype=np.int64)
    return Split(np.ones(max(lengths) + 1, dtype=np.int32), starts, np.array(lengths))


def test_histories_that_are_at_most_twice_as_long_are_together() -> None:
    lengths = [1, 2, 3, 4, 5, 8, 9, 16, 17, 1_000_000]
    groups = length_groups(of_lengths(lengths)).tolist()
    assert groups == [0, 1, 2, 2, 3, 3, 4, 4, 5, 20]
    for length, group in zip(lengths, groups, strict=True):
        shortest, longest = lengths_of_group(group)
        assert shortest <= length <= longest <= max(2 * shortest, 2)
    bounds = [lengths_of_group(group) for group in range(6)]
    assert bounds == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32)]


def test_errors_are_those_of_a_mean() -> None:
    found = metrics_with_errors(torch.tensor([0, 2, 9, 10]), 10)
    gains = [1.0, 1 / math.log2(4), 1 / math.log2(11), 0.0]
    assert found["samples"] == 4
    assert found["ndcg@10"] == pytest.approx(np.mean(gains))
    assert found["ndcg@10_error"] == pytest.approx(np.std(gains, ddof=1) / 2)
    assert found["recall@10"] == pytest.approx(0.75)
    assert found["recall@10_error"] == pytest.approx(0.25)
    assert metrics_with_errors(torch.tensor([3]), 10)["ndcg@10_error"] == 0.0


def test_metrics_of_each_group() -> None:
    ranks, groups = torch.tensor([0, 50, 1, 50, 2]), np.array([4, 1, 4, 4, 1])
    found = metrics_by_group(ranks, groups, 10)
    assert list(found) == [1, 4]
    assert found[1] == metrics_with_errors(ranks[[1, 4]], 10)
    assert found[4] == metrics_with_errors(ranks[[0, 2, 3]], 10)
