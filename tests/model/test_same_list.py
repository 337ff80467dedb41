"""The same history gets the same list: whatever its place, its batch and its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lares_kernels as lk
from lares import LaresConfig, LaresModel
from lares.data.dataset import Split
from lares.evaluation.evaluate import depth_ranks, evaluate

N_ITEMS = 200
CASES = {
    "attention": {},
    "cosine": {"scores": "cos", "tau": 0.2},
    "pre-norm, gate": {"norm": "pre", "adapter": "gate"},
    "fmlp": {"core": "fmlp"},
    "bsarec": {"core": "bsarec"},
    "no recurrence": {"n_core_layers": 0},
}


def make(**options) -> LaresModel:
    torch.manual_seed(3)
    # Weights large enough for the drawn state to decide the order.
    shape = {"max_length": 8, "d_model": 16, "d_ff": 24, "initializer_range": 0.3, **options}
    return LaresModel(LaresConfig(n_items=N_ITEMS, **shape)).eval()


def histories(n: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(1, N_ITEMS, size=int(generator.integers(1, 15))).tolist()
        for _ in range(n)
    ]


@pytest.mark.parametrize("case", CASES)
def test_in_any_place_and_batch(case: str) -> None:
    model, others = make(**CASES[case]), histories(300)
    asked = [3, 4, 5]
    alone = model.recommend([asked], 20)[0]
    for place in (0, 1, 150, 255, 256, 299):
        batch = [*others[:place], asked, *others[place:]]
        assert model.recommend(batch, 20)[place] == alone
    assert model.recommend([asked] * 3, 20) == [alone] * 3


@pytest.mark.skipif(lk.available_backends()["cpu"] != "usable", reason="no CPU kernel here")
@pytest.mark.parametrize("case", CASES)
def test_states_are_the_same_bits_in_any_batch(case: str) -> None:
    """By the CPU kernel; PyTorch's matrix products round by the shape of the batch."""
    model, rows = make(**CASES[case]), histories(300)
    whole = model._last_states(rows, None, 0, [0] * 300)
    for first, size in ((0, 1), (7, 1), (0, 2), (100, 33), (299, 1)):
        part = model._last_states(rows[first : first + size], None, 0, [0] * size)
        assert part.equal(whole[first : first + size])


def test_the_drawn_state_decides() -> None:
    """Else the tests above show nothing."""
    model = make()
    other = model.recommend_rows([[3, 4, 5]] * 2, 20, sequence_ids=[0, 1])
    assert other[0] == model.recommend([[3, 4, 5]], 20)[0] != other[1]
    assert model.recommend([[3, 4, 5]], 20, seed=1)[0] != other[0]


def test_evaluation_starts_as_recommend_does() -> None:
    """A target that ``recommend`` puts in place n has rank n; with states drawn it has another."""
    model, asked = make(), [3, 4, 5]
    order = model.recommend([asked], N_ITEMS - 1, remove_seen=False, seed=7)[0]
    targets = order[:50]
    items = np.array([value for target in targets for value in (*asked, target)], dtype=np.int32)
    starts = np.arange(50, dtype=np.int64) * 4
    split = Split(items, starts, starts + 3)
    depth = model.config.mean_depth
    shared = depth_ranks(model, split, [depth], seed=7, batch_size=7)[depth]
    assert shared.tolist() == list(range(50))
    drawn = depth_ranks(model, split, [depth], seed=7, states="drawn")[depth]
    assert drawn[0] == 0  # the first stream is everybody's
    assert drawn.tolist() != shared.tolist()
    part = Split(split.items, starts[20:], starts[20:] + 3)
    later = depth_ranks(model, part, [depth], seed=7, states="drawn", first_id=20)[depth]
    assert later.tolist() == drawn[20:].tolist()


@pytest.mark.parametrize("states", ["", "none", "Drawn", None])
def test_states_are_shared_or_drawn(states) -> None:
    split = Split(np.array([1, 2], dtype=np.int32), np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="it must be one of shared, drawn"):
        evaluate(make(), split, depths=[1], states=states)


@pytest.mark.parametrize("ids", [[0], [0, 1, 2]])
def test_streams_are_one_a_history(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="there are 2 histories"):
        make().recommend_rows([[1], [2]], sequence_ids=ids)
