"""One very long history among short ones: the same result, and no matrix of its length for all."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.data.dataset import Dataset
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.evaluation import evaluate_popularity, metrics_from_ranks, target_ranks
from lares.evaluation.evaluate import depth_ranks
from lares.model import seen
from lares.model.seen import seen_in_spans, seen_items
from tests.data.tables import peak_megabytes

N_ITEMS = 40


def ragged(lengths: list[int], seed: int = 0) -> Split:
    items = np.random.default_rng(seed).integers(1, N_ITEMS, sum(lengths) + len(lengths))
    ends = np.cumsum(np.array(lengths) + 1) - 1
    return Split(items.astype(np.int32), ends - lengths, ends)


SPLITS = {
    "one long": [3, 2, 500, 1, 4],
    "two long": [1, 90, 3, 90],
    "all long": [60, 61, 62, 63],
    "alone": [700],
    "short": [1, 1, 2, 3],
}


@pytest.fixture(params=SPLITS, name="split")
def _split(request: pytest.FixtureRequest) -> Split:
    return ragged(SPLITS[request.param])


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_MOST_CELLS", 50)
    monkeypatch.setattr(seen, "_LONG", 20)


def whole_matrix(split: Split) -> torch.Tensor:
    histories = [split.items[s:e] for s, e in zip(split.starts, split.ends, strict=True)]
    matrix = torch.zeros(len(split), max(map(len, histories)), dtype=torch.int64)
    for row, items in enumerate(histories):
        matrix[row, : len(items)] = torch.from_numpy(items)
    return matrix


def test_every_history_is_in_one_matrix(split: Split, small_limits: None) -> None:
    histories = [split.items[s:e].tolist() for s, e in zip(split.starts, split.ends, strict=True)]
    found: dict[int, set[int]] = {}
    for rows, matrix in seen_items(histories):
        assert matrix.size <= 50 or len(rows) == 1
        for row, items in zip(rows.tolist(), matrix.tolist(), strict=True):
            assert row not in found
            found[row] = set(items) - {0}
    assert found == {row: set(history) for row, history in enumerate(histories)}


def test_a_batch_with_a_long_history_is_small() -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 10**6, 8) for _ in range(511)] + [np.arange(1, 500_001)]
    assert sum(matrix.size for _, matrix in seen_items(histories)) < 1_000_000
    events = [rng.integers(1, 100, 8) for _ in range(511)] + [rng.integers(1, 100, 500_000)]
    assert sum(matrix.size for _, matrix in seen_items(events)) < 512 * 100


def test_nothing_gives_nothing() -> None:
    assert list(seen_items([])) == []
    ((rows, matrix),) = seen_items([[], []])
    assert (rows.tolist(), matrix.shape) == ([0, 1], (2, 0))


@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_ranks_are_those_of_one_matrix(split: Split, scores: str, small_limits: None) -> None:
    torch.manual_seed(0)
    model = LaresModel(LaresConfig(n_items=N_ITEMS, d_model=8, d_ff=8, scores=scores)).eval()
    found = depth_ranks(model, split, [1, 2], remove_history=True)
    recent = [split.items[s:e][-20:] for s, e in zip(split.starts, split.ends, strict=True)]
    for depth, ranks in found.items():
        states = torch.cat(
            [
                model.encoder(
                    torch.from_numpy(items)[None].long(),
                    torch.tensor([len(items)]),
                    depth,
                    seed=0,
                ).last
                for items in recent
            ]
        )
        expected = target_ranks(
            model.score_states(states),
            torch.from_numpy(split.targets).long(),
            whole_matrix(split),
        )
        assert ranks.tolist() == expected.tolist()


@pytest.mark.parametrize("remove_history", [True, False])
def test_lists_are_those_of_one_matrix(
    split: Split, remove_history: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = LaresModel(LaresConfig(n_items=N_ITEMS, d_model=8, d_ff=8)).eval()
    histories = [split.items[s:e].tolist() for s, e in zip(split.starts, split.ends, strict=True)]
    expected = model.recommend(histories, 7, remove_history=remove_history)
    monkeypatch.setattr(seen, "_MOST_CELLS", 50)
    monkeypatch.setattr(seen, "_LONG", 20)
    assert model.recommend(histories, 7, remove_history=remove_history) == expected
    if remove_history:
        for history, items in zip(histories, expected, strict=True):
            assert not set(history) & set(items)


@pytest.mark.parametrize("remove_history", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 1 << 22])
def test_popularity(
    split: Split, remove_history: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lares.evaluation.popularity._MOST_ITEMS", limit)
    train = ragged([5, 9, 3, 30], seed=1)
    dataset = Dataset(train, split, split, Vocabulary(np.arange(1, N_ITEMS)), "ragged", 4, 50)
    scores = torch.from_numpy(dataset.item_counts()).double().expand(len(split), -1)
    ranks = target_ranks(
        scores,
        torch.from_numpy(split.targets).long(),
        whole_matrix(split) if remove_history else None,
    )
    found = evaluate_popularity(dataset, split, (3, 10, 30), remove_history=remove_history)
    assert found == metrics_from_ranks(ranks, (3, 10, 30))


@pytest.mark.long
def test_memory_of_half_a_million_events() -> None:
    program = """
import numpy as np
from lares import LaresConfig, LaresModel
from lares.data.split import Split
from lares.evaluation.evaluate import depth_ranks
lengths = np.full(600, 8)
lengths[5] = 500_000
items = np.random.default_rng(0).integers(1, 400_000, lengths.sum()).astype(np.int32)
offsets = np.concatenate(([0], np.cumsum(lengths)))
split = Split(items, offsets[:-1], offsets[1:] - 1)
model = LaresModel(LaresConfig(n_items=400_001, d_model=8, d_ff=8)).eval()
depth_ranks(model, split, [1], remove_history=True)
model.recommend([items[lengths[:5].sum() :][:500_000].tolist(), *([[1, 2]] * 255)])
print(open("/proc/self/status").read())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert peak_megabytes(done.stdout) < 1500


@pytest.mark.parametrize("longest", [0, 1, 9, 1500, 60_000])
def test_spans_leave_out_what_lists_do(longest: int) -> None:
    """In order and out of it, overlapping, empty, and so long that there are several matrices."""
    generator = np.random.default_rng(longest)
    items = generator.integers(1, 3000, size=70_000).astype(np.int32)
    starts = generator.integers(0, 10_000, size=200)
    stops = starts + generator.integers(0, longest + 1, size=200)
    histories = [items[start:stop] for start, stop in zip(starts, stops, strict=True)]
    found: dict[int, set[int]] = {}
    for numbers, matrix in seen_in_spans(items, starts, stops):
        assert matrix.dtype == np.int64
        assert matrix.size <= 1 << 22
        found |= {n: {*row} - {0} for n, row in zip(numbers.tolist(), matrix.tolist(), strict=True)}
    assert found == {n: {*history.tolist()} for n, history in enumerate(histories)}
