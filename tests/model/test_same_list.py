"""The same history gets the same list: whatever its place, its batch and its neighbours."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lares_kernels as lk
from lares import LaresConfig, LaresModel
from lares.data.split import Split
from lares.errors import CheckpointError
from lares.evaluation.evaluate import depth_ranks, evaluate
from lares.model.config import MOST_SEED
from lares.tensor_files import read_tensors, write_tensors

N_ITEMS = 200
CASES = {
    "attention": {},
    "cosine": {"scores": "cosine", "tau": 0.2},
    "pre-norm, gate": {"norm": "pre", "adapter": "gate"},
    "filter": {"core": "filter"},
    "bsarec": {"core": "bsarec"},
    "no recurrence": {"n_core_layers": 0},
}


def make(seed: Any = 0, **options) -> LaresModel:
    torch.manual_seed(3)
    # Weights large enough for the drawn state to decide the order.
    shape = {"max_length": 8, "d_model": 16, "d_ff": 24, "initializer_range": 0.3, **options}
    return LaresModel(LaresConfig(n_items=N_ITEMS, **shape), seed=seed).eval()


def histories(n: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(1, N_ITEMS, size=int(generator.integers(1, 15))).tolist()
        for _ in range(n)
    ]


def whole_split(rows: list[list[int]]) -> Split:
    """Samples whose target is the last item of a history of at least two."""
    rows = [row for row in rows if len(row) > 1]
    ends = np.cumsum([len(row) for row in rows])
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    return Split(items, ends - [len(row) for row in rows], ends - 1)


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
    whole = model.states_of_rows(rows, seed=0)
    for first, size in ((0, 1), (7, 1), (0, 2), (100, 33), (299, 1)):
        part = model.states_of_rows(rows[first : first + size], seed=0)
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
    order = model.recommend([asked], N_ITEMS - 1, remove_history=False, seed=7)[0]
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


def test_a_model_has_a_seed_of_its_own(tmp_path: Path) -> None:
    """It decides lists and ranks, is saved, and gives way to one that is asked for."""
    asked, split = histories(4), whole_split(histories(40, seed=1))
    lists = {seed: make().recommend(asked, 20, seed=seed) for seed in (0, 7, MOST_SEED)}
    assert lists[0] != lists[7] != lists[MOST_SEED]
    assert make().recommend(asked, 20) == lists[0]
    for seed in (7, MOST_SEED, np.int64(7), torch.tensor(7)):
        model = make(seed)
        assert type(model.seed) is int
        model.save_pretrained(tmp_path / "model")
        again = LaresModel.from_pretrained(tmp_path / "model")
        for each in (model, again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert each.seed == int(seed)
            assert each.recommend(asked, 20) == lists[int(seed)]
            assert each.recommend_rows(asked, 20) == lists[int(seed)]
            assert each.recommend(asked, 20, seed=0) == lists[0]
            ranks = depth_ranks(each, split, [4])[4]
            assert ranks.equal(depth_ranks(make(), split, [4], seed=int(seed))[4])
            assert evaluate(each, split, depths=[4]) == evaluate(
                make(), split, depths=[4], seed=int(seed)
            )
    model.seed = 8
    assert model.recommend(asked, 20) == make().recommend(asked, 20, seed=8)


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1, 1.0, "7", True, None])
def test_seeds_that_a_model_cannot_have(seed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed is .*; it must be a whole number in 0.."):
        make(seed)
    model = make()
    model.seed = seed
    with pytest.raises(ValueError, match="seed is "):
        model.recommend([[1]], 2)
    with pytest.raises(ValueError, match="seed is "):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", ["", "-1", "x", str(MOST_SEED + 1), "9" * 30])
def test_seeds_that_no_file_says(said: str, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    tensors, metadata = read_tensors(tmp_path / "model.safetensors")
    write_tensors(tmp_path / "model.safetensors", tensors, {**metadata, "lares_seed": said})
    with pytest.raises(CheckpointError, match="its seed is"):
        LaresModel.from_pretrained(tmp_path)


def without_seed(folder: Path) -> None:
    """Make a saved model as they were before they had one."""
    tensors, metadata = read_tensors(folder / "model.safetensors")
    del metadata["lares_seed"]
    write_tensors(folder / "model.safetensors", tensors, metadata)


def test_models_of_before_have_the_seed_of_their_run(tmp_path: Path) -> None:
    """Given the folder of the run; else 0, and so do models that were pickled."""
    make(7).save_pretrained(tmp_path / "best")
    without_seed(tmp_path / "best")
    config = tmp_path / "config.yaml"
    config.write_text("data:\n  path: x\ntrainer:\n  seed: 7\n")
    assert LaresModel.from_pretrained(tmp_path).seed == 7
    assert LaresModel.from_pretrained(tmp_path / "best").seed == 0
    for broken in ("", "trainer: 3", "trainer:\n  seed: x", "trainer:\n  seed: -1", "a: [", "\x00"):
        config.write_text(broken)
        with pytest.raises(CheckpointError, match=r"config\.yaml does not say the run's seed"):
            LaresModel.from_pretrained(tmp_path)
    model = make()
    del model.seed
    assert model.recommend([[1]], 5) == make(0).recommend([[1]], 5)


@pytest.mark.parametrize("states", ["", "none", "Drawn", None])
def test_states_are_shared_or_drawn(states) -> None:
    split = Split(np.array([1, 2], dtype=np.int32), np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="it must be one of shared, drawn"):
        evaluate(make(), split, depths=[1], states=states)


@pytest.mark.parametrize("ids", [[0], [0, 1, 2]])
def test_streams_are_one_a_history(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="there are 2 histories"):
        make().recommend_rows([[1], [2]], sequence_ids=ids)
