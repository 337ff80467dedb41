"""Windows of histories: every target once, with the context it should have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lares.data import load_dataset
from lares.data.split import Split
from lares.data.windows import cut_windows
from lares.errors import ConfigError, DataError


@pytest.mark.parametrize(("max_length", "overlap"), [(1, 0), (4, 0), (4, 2), (5, 4), (100, 7)])
def test_every_sample_is_trained_once(interactions: Path, max_length: int, overlap: int) -> None:
    split = load_dataset(interactions).train
    windows = cut_windows(split, max_length, overlap)
    assert windows.lengths.max() <= max_length
    every = windows.positions(np.arange(len(windows)))
    assert np.array_equal(np.sort(every.samples), np.arange(len(split)))
    assert np.array_equal(every.targets, split.ends[every.samples])
    assert len(every.rows) == windows.sizes.sum()

    some = np.array([3, 0, len(windows) - 1])
    found = windows.positions(some)
    packed = np.concatenate(
        [np.arange(windows.starts[w], windows.starts[w] + windows.lengths[w]) for w in some]
    )
    assert np.array_equal(packed[found.rows] + 1, found.targets)  # each predicts what comes next
    # A position sees its whole history as far as that fits, else the context that was asked for.
    owner = np.repeat(some, windows.sizes[some])
    seen = found.targets - windows.starts[owner]
    whole = split.ends[found.samples] - split.starts[found.samples]
    fits = windows.starts[owner] == split.starts[found.samples]
    assert (seen[fits] == whole[fits]).all()
    assert (seen > np.minimum(overlap, whole - 1)).all()


def test_a_long_history_ends_with_a_whole_window() -> None:
    n = 11  # targets, of one history of 12 items behind another of 3
    starts = np.array([0, 0] + [3] * n)
    split = Split(np.arange(16, dtype=np.int32), starts, np.array([1, 2, *range(4, 4 + n)]))
    windows = cut_windows(split, max_length=4, overlap=1)
    assert windows.starts.tolist() == [0, 3, 4, 7, 10]
    assert windows.lengths.tolist() == [2, 2, 4, 4, 4]
    assert windows.first_trained.tolist() == [0, 0, 1, 1, 1]


def test_what_cannot_be_cut(interactions: Path) -> None:
    split = load_dataset(interactions).train
    with pytest.raises(ConfigError, match=r"sampling\.overlap is 4; it must be in 0\.\.3"):
        cut_windows(split, 4, 4)
    part = Split(split.items, split.starts[::2], split.ends[::2])
    with pytest.raises(DataError, match="every prefix"):
        cut_windows(part, 4, 0)
