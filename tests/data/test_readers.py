"""Every form of file, and what a malformed one is told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares.data import load_dataset
from lares.errors import DataError

# Four users; u3's rows are out of time order, u1 and u3 tie once.
ROWS = [
    ("u1", "a", 1), ("u1", "b", 2), ("u1", "c", 2), ("u1", "d", 5), ("u1", "a", 6),
    ("u2", "b", 1), ("u2", "c", 2), ("u2", "d", 3),
    ("u3", "d", 9), ("u3", "c", 2), ("u3", "b", 2), ("u3", "a", 1), ("u3", "e", 10),
    ("u4", "a", 4), ("u4", "b", 5),
]  # fmt: skip
HISTORIES = {
    "test": [(["a", "b", "c", "d"], "a"), (["b", "c"], "d"), (["a", "c", "b", "d"], "e"), (["a"], "b")],
    "valid": [(["a", "b", "c"], "d"), (["b"], "c"), (["a", "c", "b"], "d")],
    "train": [(["a"], "b"), (["a", "b"], "c"), (["a"], "c"), (["a", "c"], "b")],
}  # fmt: skip


def samples(dataset, split: str) -> list:
    part = getattr(dataset, split)
    decode = dataset.vocabulary.decode
    return [
        (decode(part.items[start:end]), decode([part.items[end]])[0])
        for start, end in zip(part.starts, part.ends, strict=True)
    ]


def check(dataset) -> None:
    for split, expected in HISTORIES.items():
        assert samples(dataset, split) == expected, split


def write_csv(path: Path, header: str, rows=ROWS, delimiter: str = ",") -> Path:
    lines = [header] + [delimiter.join(map(str, row)) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_parquet(tmp_path: Path) -> None:
    users, items, times = zip(*ROWS, strict=True)
    table = pa.table({"user_id": users, "item_id": items, "timestamp": times, "other": times})
    pq.write_table(table, tmp_path / "x.parquet")
    check(load_dataset(tmp_path / "x.parquet"))


def test_parquet_without_time_keeps_the_rows_order(tmp_path: Path) -> None:
    table = pa.table({"user_id": [2, 1, 2, 1, 2, 1, 1], "item_id": [9, 3, 8, 2, 9, 4, 3]})
    pq.write_table(table, tmp_path / "x.parquet")
    dataset = load_dataset(tmp_path / "x.parquet")
    assert samples(dataset, "test") == [([3, 2, 4], 3), ([9, 8], 9)]
    assert samples(dataset, "train") == [([3], 2)]


def test_csv_with_other_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", "who,what,when")
    check(load_dataset(path, user_column="who", item_column="what", time_column="when"))
    path = write_csv(tmp_path / "x.tsv", "user_id\titem_id\ttimestamp", delimiter="\t")
    check(load_dataset(path))


def test_amazon_2023(tmp_path: Path) -> None:
    rows = [(user, item, 5.0, time) for user, item, time in ROWS]
    header = "user_id,parent_asin,rating,timestamp"
    check(load_dataset(write_csv(tmp_path / "Video_Games.csv", header, rows)))


def test_amazon_2023_last_out(tmp_path: Path) -> None:
    """Its three files together are the same interactions."""
    ordered = sorted(ROWS, key=lambda row: (row[0], row[2]))
    header = "user_id,parent_asin,rating,timestamp"
    parts: dict[str, list] = {"train": [], "valid": [], "test": []}
    for user in ("u1", "u2", "u3", "u4"):
        mine = [(u, i, 5.0, t) for u, i, t in ordered if u == user]
        parts["test"].append(mine[-1])
        parts["valid"].append(mine[-2])
        parts["train"] += mine[:-2]
    for name, rows in parts.items():
        write_csv(tmp_path / f"Games.{name}.csv", header, rows)
    check(load_dataset(tmp_path / "Games.valid.csv"))
    (tmp_path / "Games.train.csv").unlink()
    with pytest.raises(DataError, match=r"Games\.train\.csv"):
        load_dataset(tmp_path / "Games.valid.csv")


def test_recbole_interactions(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    path = write_csv(tmp_path / "set" / "set.inter", header, delimiter="\t")
    check(load_dataset(path))
    check(load_dataset(path.parent))


def test_recbole_sequence_form(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for split, rows in HISTORIES.items():
        lines = [(f"u{n}", " ".join(history), target) for n, (history, target) in enumerate(rows)]
        header = "user_id:token\titem_id_list:token_seq\titem_id:token"
        write_csv(folder / f"set.{split}.inter", header, lines, delimiter="\t")
    dataset = load_dataset(folder)
    check(dataset)
    assert dataset.name == "set"
    check(load_dataset(folder / "set.valid.inter"))
    with pytest.raises(DataError, match="core=5 cannot be applied"):
        load_dataset(folder, core=5)
    (folder / "set.valid.inter").write_text(
        "user_id:token\titem_id_list:token_seq\titem_id:token\nu1\ta b\tc\nu2\t\tc\n"
    )
    with pytest.raises(DataError, match=r"set\.valid\.inter, line 3: the history is empty"):
        load_dataset(folder)


def test_movielens(tmp_path: Path) -> None:
    rows = [(1, 5, 3, 10), (1, 6, 3, 11), (1, 5, 4, 12), (1, 7, 1, 9), (2, 6, 1, 1), (2, 7, 1, 2)]
    (tmp_path / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    dataset = load_dataset(tmp_path)
    assert dataset.name == "ml-100k"
    assert samples(dataset, "test") == [([7, 5, 6], 5), ([6], 7)]
    assert samples(dataset, "train") == [([7], 5)]


def test_whole_numbers_keep_their_numbers(tmp_path: Path) -> None:
    rows = [(1, 3, 1), (1, 1, 2), (1, 2, 3), (1, 4, 4)]
    dataset = load_dataset(write_csv(tmp_path / "x.csv", "user_id,item_id,timestamp", rows))
    assert dataset.train.items.tolist() == [3, 1, 2, 4]
    header = "user_id:token\titem_id:token"
    dataset = load_dataset(
        write_csv(tmp_path / "x.inter", header, [row[:2] for row in rows], delimiter="\t")
    )
    assert dataset.train.items.tolist() == [3, 1, 2, 4]


def test_five_core(tmp_path: Path) -> None:
    """Dropping a rare item can make a user too short, whose items then become rare."""
    rows = [(f"u{u}", f"i{i}", t) for u in range(5) for t, i in enumerate(range(5))]
    rows += [("v", "i0", 0), ("v", "i1", 1), ("v", "i2", 2), ("v", "i3", 3), ("v", "rare", 4)]
    dataset = load_dataset(write_csv(tmp_path / "x.csv", "user_id,item_id,timestamp", rows), core=5)
    assert dataset.n_users == 5
    assert dataset.vocabulary.decode(range(1, 6)) == ["i0", "i1", "i2", "i3", "i4"]
    assert dataset.n_interactions == 25
    with pytest.raises(DataError, match="nothing is left after 6-core"):
        load_dataset(tmp_path / "x.csv", core=6)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "x.csv is empty"),
        ("x.csv", "user_id,item_id\n", "holds no interaction"),
        ("x.csv", "user,item_id\n1,2\n", "has no column 'user_id'; its columns are 'user', 'item_id'"),
        ("x.csv", "user_id,item_id\n1,2\n1\n", "x.csv: malformed row: CSV parse error: line 3"),
        ("x.csv", "user_id,item_id\n1,2\n1,\n1,3\n", "(line 3): column 'item_id' is empty"),
        ("x.csv", "user_id,item_id,timestamp\n1,2,3\n1,2,noon\n", "line 3"),
        ("x.csv", "user_id,item_id,timestamp\n1,2,3\n1,2,\n", "column 'timestamp' is empty"),
        ("x.csv", "user_id,item_id\n1,2.5\n", "ids must be whole numbers or text"),
        ("x.inter", "user_id\titem_id:token\n1\t2\n", "field 'user_id' has no type"),
        ("x.inter", "user_id:token\titem_id:token\n1\t2\t3\n", "line 2"),
        ("x.parquet", "no parquet", "not a readable Parquet file"),
        ("x.txt", "user_id,item_id\n", "cannot tell the format"),
        ("u.data", "1\t2\t3\t4\n1\tx\t3\t4\n", "line 2"),
        ("x.csv", "user_id,item_id\n1,2\n1,3\n1,4\n2,3\n", "needs at least 4"),
    ],
)  # fmt: skip
def test_malformed(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "needs at least 4" in message


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        load_dataset(tmp_path / "none.csv")
    with pytest.raises(DataError, match="format is 'xml'"):
        load_dataset(tmp_path, format="xml")
    with pytest.raises(DataError, match="holds neither"):
        load_dataset(tmp_path)


def test_empty_parquet(tmp_path: Path) -> None:
    empty = pa.table({"user_id": pa.array([], pa.int64()), "item_id": pa.array([], pa.int64())})
    pq.write_table(empty, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="holds no interaction"):
        load_dataset(tmp_path / "x.parquet")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"user_id,item_id\n1,caf\xe9\n")
    with pytest.raises(DataError, match=r"x\.csv"):
        load_dataset(path)
