"""Samples numbered past the 24 bits that a draw's address has for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.data.split import Split
from lares.errors import ConfigError
from lares.evaluation.evaluate import depth_ranks
from lares.model.streams import batches, chunk_of, chunk_seed

CHUNK = 1 << 24


@pytest.fixture(scope="module")
def model() -> LaresModel:
    torch.manual_seed(0)
    return LaresModel(LaresConfig(n_items=200, d_model=16, d_ff=16, max_length=6)).eval()


def same_histories(n: int) -> Split:
    """``n`` samples that differ in nothing but their number."""
    items = np.tile(np.array([3, 5, 7, 11], np.int32), n)
    starts = np.arange(n) * 4
    return Split(items, starts, starts + 3)


@pytest.mark.parametrize("n", [1, 5, 17])
@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("first", [0, 3, CHUNK - 5, CHUNK, 3 * CHUNK - 1])
def test_no_batch_holds_two_chunks(n: int, size: int, first: int) -> None:
    found = list(batches(n, size, first))
    assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])]
    assert found[-1][1] == n
    for a, b in found:
        assert 1 <= b - a <= size
        assert chunk_of(first + a) == chunk_of(first + b - 1)
    if first in (0, 3):
        assert found == [(a, min(a + size, n)) for a in range(0, n, size)]


def test_seeds_of_chunks() -> None:
    assert chunk_seed(2025, 0) == 2025
    seeds = {chunk_seed(seed, chunk) for seed in (0, 1, 2025, 2**64 - 1) for chunk in range(1, 9)}
    assert len(seeds) == 32
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert chunk_seed(2025, 1) == 8912707276926267084  # for ever: runs are told again by it


@pytest.mark.parametrize("batch_size", [3, 512])
def test_ranks_around_the_boundary(model: LaresModel, batch_size: int) -> None:
    """A split from 2^24 - 4 on is the end of one chunk and the start of the next."""
    split = same_histories(12)

    def ranks(first: int) -> list[int]:
        found = depth_ranks(
            model, split, [1], seed=9, states="drawn", first_id=first, batch_size=batch_size
        )
        return found[1].tolist()

    across, before, after = ranks(CHUNK - 4), ranks(CHUNK - 12), ranks(CHUNK)
    assert across == before[-4:] + after[:8]
    assert after != ranks(0)
    assert after != ranks(2 * CHUNK)
    # Wherever a process's part begins, a sample draws what it drew.
    assert ranks(CHUNK + 5)[:7] == after[5:]


def test_shared_states_have_no_number(model: LaresModel) -> None:
    split = same_histories(3)
    found = [depth_ranks(model, split, [1], first_id=first)[1] for first in (0, CHUNK - 1)]
    assert found[0].tolist() == found[1].tolist()


def test_recommendations_of_any_stream(model: LaresModel) -> None:
    ids = [0, CHUNK, CHUNK - 1, 5, CHUNK + 5, 40 * CHUNK + 5, np.int64(CHUNK)]
    together = model.recommend_rows([[3, 5, 7]] * len(ids), 20, sequence_ids=ids)
    alone = [model.recommend_rows([[3, 5, 7]], 20, sequence_ids=[i])[0] for i in ids]
    assert together == alone
    assert together[1] == together[6]
    assert len({tuple(row) for row in together}) == 6


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True, 2**63])
def test_what_is_no_stream(model: LaresModel, wrong: object) -> None:
    with pytest.raises(ConfigError, match="sequence_ids"):
        model.recommend_rows([[3]], 2, sequence_ids=[wrong])  # type: ignore[list-item]
