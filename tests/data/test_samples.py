"""Samples as places in one flat array; batches; partners; memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from lares.data import PartnerIndex, collate, epoch_order, load_dataset
from lares.data.dataset import Dataset
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from tests.conftest import write_interactions
from tests.data.tables import peak_megabytes


def test_every_prefix_is_a_sample(interactions: Path) -> None:
    dataset = load_dataset(interactions)
    train, test = dataset.train, dataset.test
    lengths = test.ends - test.starts + 1
    assert len(train) == int((lengths - 3).clip(min=0).sum())
    assert len(dataset.valid) == len(test) == dataset.n_users
    assert (train.ends > train.starts).all()
    assert train.items is test.items  # one flat array, nothing copied
    assert dataset.item_counts().sum() == int((lengths - 2).clip(min=0)[lengths > 3].sum())


def test_collate(interactions: Path) -> None:
    train = load_dataset(interactions).train
    indices = np.array([0, 5, 17, 3])
    item_seq, lengths, targets = collate(train, indices, max_length=3)
    assert item_seq.shape == (4, lengths.max())
    for row, index in enumerate(indices):
        history = train.items[train.starts[index] : train.ends[index]][-3:]
        assert lengths[row] == len(history)
        assert item_seq[row].tolist() == history.tolist() + [0] * (item_seq.shape[1] - len(history))
        assert targets[row] == train.items[train.ends[index]]


def test_epoch_order() -> None:
    first = epoch_order(1000, 7, 0)
    assert sorted(first) == list(range(1000))
    assert (first == epoch_order(1000, 7, 0)).all()
    assert (first != epoch_order(1000, 7, 1)).any()
    assert (first != epoch_order(1000, 8, 0)).any()


def test_partners_are_uniform_among_others_with_the_same_target(interactions: Path) -> None:
    train = load_dataset(interactions).train
    index = PartnerIndex(train)
    generator = np.random.default_rng(0)
    everyone = np.arange(len(train))
    targets = train.targets
    counts = np.bincount(targets)
    drawn = np.stack([index.draw(everyone, generator) for _ in range(400)])
    assert (targets[drawn] == targets).all()
    alone = counts[targets] == 1
    assert (drawn[:, alone] == everyone[alone]).all()
    assert (drawn[:, ~alone] != everyone[~alone]).all()
    sample = int(np.flatnonzero(counts[targets] == counts[counts > 2].min())[0])
    others = np.flatnonzero((targets == targets[sample]) & (everyone != sample))
    seen = np.bincount(drawn[:, sample], minlength=len(train))[others]
    assert (np.abs(seen - 400 / len(others)) < 5 * np.sqrt(400 / len(others))).all()


def test_vocabulary(tmp_path: Path) -> None:
    words = Vocabulary(np.array(["ant", "bee", "cat"]))
    assert words.encode(["cat", "ant"]).tolist() == [3, 1]
    assert words.decode([2]) == ["bee"]
    with pytest.raises(DataError, match="'dog' is unknown"):
        words.encode(["ant", "dog"])
    words.save(tmp_path / "items.json")
    assert Vocabulary.load(tmp_path / "items.json").ids.tolist() == ["ant", "bee", "cat"]
    (tmp_path / "items.json").write_text("[")
    with pytest.raises(DataError, match=r"items\.json"):
        Vocabulary.load(tmp_path / "items.json")
    numbers = Vocabulary(np.array([10, 20, 30]))
    assert numbers.encode(["20", 10]).tolist() == [2, 1]
    with pytest.raises(DataError, match="'x' is unknown"):
        numbers.encode(["x"])


def test_items_keep_the_rows_of_another_vocabulary(tmp_path: Path) -> None:
    dataset = load_dataset(write_interactions(tmp_path / "a.parquet"))
    wider = Vocabulary(np.concatenate((np.array([-4, 0]), dataset.vocabulary.ids)))
    moved = dataset.with_vocabulary(wider)
    assert wider.decode(moved.train.items) == dataset.vocabulary.decode(dataset.train.items)
    with pytest.raises(DataError, match="unknown"):
        dataset.with_vocabulary(Vocabulary(dataset.vocabulary.ids[1:]))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
def test_a_million_rows_stay_under_300_mb(tmp_path: Path) -> None:
    """Reading, splitting, indexing partners and making a batch, over the bare interpreter."""
    program = """
        import sys
        from pathlib import Path
        import numpy as np, pyarrow as pa, pyarrow.parquet as pq
        path = sys.argv[1]
        if sys.argv[2] == "write":
            generator = np.random.default_rng(0)
            users = np.sort(generator.integers(1, 6041, size=1_000_000)).astype(np.int32)
            items = generator.zipf(1.3, size=1_000_000) % 3400 + 1
            columns = {"user_id": users, "item_id": items.astype(np.int32)}
            columns["timestamp"] = np.arange(1_000_000)
            pq.write_table(pa.table(columns), path)
            sys.exit()
        print(Path("/proc/self/status").read_text())
        from lares.data import PartnerIndex, collate, epoch_order, load_dataset
        dataset = load_dataset(path)
        order = epoch_order(len(dataset.train), 0, 0)[:1024]
        collate(dataset.train, PartnerIndex(dataset.train).draw(order, np.random.default_rng(0)), 20)
        assert len(dataset.train) > 950_000 and "torch" not in sys.modules
        print("AFTER", Path("/proc/self/status").read_text())
    """
    path = str(tmp_path / "million.parquet")
    run = [sys.executable, "-c", textwrap.dedent(program), path]
    subprocess.run([*run, "write"], check=True)
    done = subprocess.run([*run, "read"], check=True, capture_output=True, text=True)
    before, after = map(peak_megabytes, done.stdout.split("AFTER"))
    assert after - before < 300


def test_counts_of_items_do_not_depend_on_how_samples_lie() -> None:
    """One flat history of which samples are prefixes, and a copy of each prefix."""
    shared = Split(np.array([1, 2, 3], np.int32), np.array([0, 0]), np.array([1, 2]))
    copies = Split(np.array([1, 2, 1, 2, 3], np.int32), np.array([0, 2]), np.array([1, 4]))
    for split in (shared, copies):
        dataset = Dataset(split, split, split, Vocabulary([1, 2, 3]), "x", 1, 3)
        assert dataset.item_counts().tolist() == [0, 1, 1, 1]
