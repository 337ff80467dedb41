"""What evaluates a model leaves it in the modes that it was in, also from several threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lares import LaresModel
from lares.data.split import Split
from lares.evaluation.evaluate import depth_ranks
from lares.model.modes import evaluating
from tests.model.test_same_list import histories, make


def modes(model: LaresModel) -> list[bool]:
    return [part.training for part in model.modules()]


def test_every_part_is_put_back() -> None:
    model = make(dropout=0.5).train()
    model.encoder.pre.eval()  # frozen, say
    before = modes(model)
    model.recommend(histories(3))
    assert modes(model) == before
    split = Split(np.array([1, 2, 3]), np.array([0]), np.array([2]))
    depth_ranks(model, split, (1,))
    assert modes(model) == before
    with pytest.raises(ValueError, match="num_steps"):
        model.recommend(histories(3), num_steps=-1)
    assert modes(model) == before
    with evaluating(model):
        assert not any(modes(model))
        with evaluating(model):
            pass
        assert not any(modes(model))
    assert modes(model) == before


def test_threads_do_not_switch_dropout_on_for_each_other() -> None:
    model = make(dropout=0.5)
    asked = [histories(1, seed) for seed in range(30)]
    wanted = [model.recommend(each) for each in asked]
    model.train()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(model.recommend, asked * 10))
    finally:
        sys.setswitchinterval(interval)
    assert found == wanted * 10
    assert all(modes(model))
