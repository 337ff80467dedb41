"""What a digest tells apart, and what not: samples are what they hold, however they lie in memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lares.data import Dataset, Split, Vocabulary, load_dataset
from lares.data import digest as module
from lares.data.digest import former_digest
from lares.training.data_record import DataRecord

Samples = list[tuple[list[int], int]]
SPLITS = ("train", "valid", "test")


@pytest.fixture(params=[1, 3, 1 << 20], autouse=True)
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of every size give the same."""
    monkeypatch.setattr(module, "_AT_ONCE", request.param)


def histories(n_users: int, longest: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(1, 6, generator.integers(2, longest + 1)).tolist()
        for _ in range(n_users)
    ]


def write_plain(path: Path, users: Sequence[Sequence[int]]) -> Path:
    rows = [f"{u}\t{item}\n" for u, items in enumerate(users) for item in items]
    path.parent.mkdir(parents=True)
    path.write_text("user_id:token\titem_id:token\n" + "".join(rows))
    return path


def write_sequences(
    folder: Path, users: Sequence[Sequence[int]], window: int = 1000, every_prefix: bool = True
) -> Path:
    rows: dict[str, list[str]] = {name: [] for name in SPLITS}
    for user, items in enumerate(users):
        for end in range(1, len(items)):
            split = {len(items) - 1: "test", len(items) - 2: "valid"}.get(end, "train")
            if every_prefix or split != "train" or end == len(items) - 3:
                history = " ".join(map(str, items[max(0, end - window) : end]))
                rows[split].append(f"{user}\t{history}\t{items[end]}\n")
    folder.mkdir(parents=True)
    for split, lines in rows.items():
        header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
        (folder / f"x.{split}.inter").write_text(header + "".join(lines))
    return folder


@pytest.mark.parametrize("longest", [4, 30])
def test_both_forms_of_recbole_are_the_same_data(tmp_path: Path, longest: int) -> None:
    users = [[1, 2, 3, 4], *histories(20, longest), [5, 5, 5, 5, 5]]
    plain = load_dataset(write_plain(tmp_path / "plain" / "x.inter", users))
    sequences = load_dataset(write_sequences(tmp_path / "sequences", users))
    assert plain.digest() == sequences.digest()
    assert DataRecord.of(plain) == DataRecord.of(sequences)
    assert plain.n_interactions == sequences.n_interactions == sum(map(len, users))


def test_interactions_of_sequences_that_do_not_say_all(tmp_path: Path) -> None:
    users = histories(20, 30)
    wanted = sum(map(len, users))
    cut = load_dataset(write_sequences(tmp_path / "cut", users, window=5))
    assert cut.n_interactions == wanted
    few = load_dataset(write_sequences(tmp_path / "few", users, every_prefix=False))
    assert few.n_interactions == wanted


def dataset(train: Samples, valid: Samples, test: Samples, shared: bool) -> Dataset:
    """Samples with a copy of their items each; or, ``shared``, extending each other where they can."""
    splits = []
    for samples in (train, valid, test):
        items, starts, ends = [0], [], []
        for history, target in samples:
            whole = [*history, target]
            if shared and starts and items[starts[-1] : ends[-1] + 1] == history:
                items.append(target)
                starts.append(starts[-1])
            else:
                starts.append(len(items))
                items += whole
            ends.append(len(items) - 1)
        splits.append(
            Split(np.array(items, np.int32), np.array(starts, np.int64), np.array(ends, np.int64))
        )
    return Dataset(*splits, Vocabulary([1, 2, 3]), "x", 1, 1)


def test_a_digest_is_of_what_samples_hold() -> None:
    """All data of few samples: as many digests as there are data."""
    possible: Samples = [([1], 2), ([1, 2], 3), ([1, 3], 2), ([1, 2, 3], 1), ([2], 1), ([1], 3)]
    several = [list(some) for n in range(4) for some in itertools.product(possible, repeat=n)]
    digests = set()
    for samples in several:
        made = {dataset(samples, [], possible[:1], shared).digest() for shared in (False, True)}
        assert len(made) == 1
        digests |= made
    assert len(digests) == len(several)


def test_splits_and_ids_count() -> None:
    one: Samples = [([1], 2)]
    made = [dataset(one, [], [], True), dataset([], one, [], True), dataset([], [], one, True)]
    made += [replace(made[0], vocabulary=Vocabulary(ids)) for ids in ([1, 2, 4], ["1", "2", "3"])]
    assert len({each.digest() for each in made}) == len(made)
    assert replace(made[0], name="y", n_users=2).digest() == made[0].digest()


def test_a_digest_of_long_copies() -> None:
    """One item that differs anywhere in a history is seen."""
    items = np.random.default_rng(0).integers(1, 4, 60).tolist()
    samples = [(items[:end], items[end]) for end in range(1, 60)]
    whole = dataset(samples, [], [], True).digest()
    assert dataset(samples, [], [], False).digest() == whole
    for sample, place in ((5, 0), (5, 2), (40, 39), (58, 30), (58, 57), (58, 58)):
        changed = [([*history], target) for history, target in samples]
        history, target = changed[sample]
        holds = [*history, target]
        holds[place] = holds[place] % 3 + 1
        changed[sample] = (holds[:-1], holds[-1])
        for shared in (False, True):
            assert dataset(changed, [], [], shared).digest() != whole


def test_records_of_former_runs_are_known(tmp_path: Path) -> None:
    """They have the digest of their time, and do not say its form."""
    data = load_dataset(write_plain(tmp_path / "plain" / "x.inter", histories(20, 30)))
    record = DataRecord.of(data, form=1)
    assert record.digest == former_digest(data.vocabulary, data.splits) != data.digest()
    record.save(tmp_path / "data.json")
    text = (tmp_path / "data.json").read_text()
    (tmp_path / "data.json").write_text(text.replace(',\n  "form": 1', ""))
    assert "form" not in (tmp_path / "data.json").read_text()
    assert DataRecord.load(tmp_path / "data.json") == record
