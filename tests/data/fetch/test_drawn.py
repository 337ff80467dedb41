"""The drawn data are those of their law, and the same everywhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lares.cli import main
from lares.data import load_dataset
from lares.data.fetch.drawn import drawn_histories, follower, get_drawn
from lares.data.fetch.sets import located
from lares.errors import DownloadError


def test_the_law() -> None:
    histories = drawn_histories()
    lengths = np.array([len(history) for history in histories])
    assert len(histories) == 3000
    assert (lengths.min(), lengths.max()) == (5, 50)
    assert np.mean(lengths < 10) == pytest.approx(0.5, abs=0.03)
    first = np.bincount([history[0] // 50 for history in histories], minlength=24)
    assert first[0] / first[11] == pytest.approx(15 / 4, rel=0.4)
    pairs = np.array([pair for history in histories for pair in pairwise(history.tolist())])
    group, place = np.divmod(pairs, 50)
    stays = group[:, 0] == group[:, 1]
    assert stays.mean() == pytest.approx(0.88, abs=0.01)  # and 0.04 / 24 that come back
    following = (group[:, 0] + 1) % 24 == group[:, 1]
    assert following.mean() == pytest.approx(0.08 + 0.04 / 24, abs=0.01)
    follows = (place[stays, 0] + 1) % 50 == place[stays, 1]
    assert follows.mean() == pytest.approx(0.5 + 0.5 / 50, abs=0.03)
    others = np.bincount(place[stays][~follows, 1], minlength=50)
    assert others[0] > others[10] > others[45] > 0


def test_the_file_is_read_as_any_other(tmp_path: Path) -> None:
    path = get_drawn(tmp_path)
    dataset = load_dataset(path)
    histories = drawn_histories()
    assert dataset.name == "drawn"
    assert dataset.n_users == len(histories)
    assert dataset.n_interactions == sum(map(len, histories))
    sequences = dataset.sequences
    assert sequences is not None
    rows = sequences.items[sequences.offsets[6] : sequences.offsets[7]]
    ids = dataset.vocabulary.decode(rows.tolist())
    assert ids == [f"g{item // 50 + 1:02d}-{item % 50 + 1:02d}" for item in histories[6]]
    before = path.stat().st_mtime_ns
    assert get_drawn(tmp_path) == path  # whose digest is the one that is written down
    assert path.stat().st_mtime_ns == before


def test_another_file_of_that_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "drawn.csv"
    path.write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DownloadError, match=r"drawn\.csv is not the drawn data of this release"):
        get_drawn(tmp_path)
    assert path.read_text() == "user_id,item_id\n1,2\n"
    with pytest.raises(DownloadError, match="cannot be written"):
        get_drawn(path)


def test_it_is_a_set_like_others(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    main(["data", "get", "drawn"])
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'cache' / 'drawn' / 'drawn.csv'}\n"
    assert told.err.startswith("drawn: Drawn, nobody's: 3,000 users drift")
    assert located("drawn") == Path(told.out.strip())


@pytest.mark.parametrize(("item", "next_one"), [("g01-01", "g01-02"), ("g24-50", "g24-01")])
def test_what_follows(item: str, next_one: str) -> None:
    assert follower(item) == next_one
