"""Every form of file, and what a malformed one is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares.data import Vocabulary, load_dataset
from lares.data.embed import read_item_texts
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
    dataset = load_dataset(tmp_path / "Games.valid.csv", format="amazon23")
    check(dataset)
    assert dataset.name == "Games"
    assert dataset.notes == ()
    assert dataset.source["format"].startswith("Amazon Reviews 2023, CSV")
    write_csv(tmp_path / "Games.train.csv", header, [(u, i, 5.0, t) for u, i, t in ROWS])
    alone = load_dataset(tmp_path / "Games.train.csv")  # a file is what it is called
    check(alone)
    assert alone.name == "Games.train"
    assert alone.notes == (
        "Games.train.csv alone is read, not Games.valid.csv and Games.test.csv beside it; "
        "--data.format amazon23 joins them",
    )
    (tmp_path / "Games.train.csv").unlink()
    with pytest.raises(DataError, match=r"beside it Games\.train\.csv is missing"):
        load_dataset(tmp_path / "Games.valid.csv", format="amazon23")


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
    with pytest.raises(
        DataError, match=r"set\.valid\.inter, line 3: column 'item_id_list' is empty"
    ):
        load_dataset(folder)
    dropped = load_dataset(folder, drop_missing=True)
    assert len(dropped.valid) == 1
    assert "left out: 1 of 2 rows lack a value (1 in 'item_id_list')" in dropped.notes[0]
    (folder / "set.valid.inter").unlink()
    with pytest.raises(DataError, match=r"there is no file .*set\.valid\.inter"):
        load_dataset(folder)


ENDINGS = [".inter", ".INTER", ".inter.gz", ".inter.zst", ".Inter.GZ"]


def write_atomic(path: Path, header: str, rows) -> Path:
    """An atomic file, compressed as its name says."""
    write_csv(path, header, rows, delimiter="\t")
    if path.name.lower().endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif path.name.lower().endswith(".zst"):
        path.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
    return path


def write_sequence_form(
    folder: Path, ending: str, histories=HISTORIES, upper: bool = False
) -> None:
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    for split, rows in histories.items():
        lines = [(f"u{n}", " ".join(history), target) for n, (history, target) in enumerate(rows)]
        write_atomic(folder / f"set.{split.upper() if upper else split}{ending}", header, lines)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("upper", [False, True])
def test_recbole_files_in_capitals_and_compressed(tmp_path: Path, ending: str, upper: bool) -> None:
    folder = tmp_path / "sequences"
    write_sequence_form(folder, ending, upper=upper)
    for path in (folder, *folder.iterdir()):
        for form in ("auto", "recbole"):
            dataset = load_dataset(path, format=form)
            check(dataset)
            assert dataset.name == "set"
    folder = tmp_path / "plain"
    header = "user_id:token\titem_id:token\ttimestamp:float"
    file = write_atomic(folder / f"set{ending}", header, ROWS)
    (folder / "set.inter.d").mkdir()  # no file
    (folder / "other.inter").mkdir()
    (folder / f".set{ending}").write_text("hidden")
    for path in (folder, file):
        for form in ("auto", "recbole"):
            dataset = load_dataset(path, format=form)
            check(dataset)
            assert dataset.name == "set"


def test_recbole_files_in_two_forms(tmp_path: Path) -> None:
    """Which of them is meant is said by the file that is named, or by nothing."""
    others = {split: rows[:1] for split, rows in HISTORIES.items()}
    write_sequence_form(tmp_path, ".inter.gz")
    write_sequence_form(tmp_path, ".inter", others)
    check(load_dataset(tmp_path / "set.test.inter.gz"))
    assert len(load_dataset(tmp_path / "set.test.inter").test) == 1
    with pytest.raises(DataError, match=r"set\.train\.inter and set\.train\.inter\.gz.*keep one"):
        load_dataset(tmp_path)
    for split in HISTORIES:
        (tmp_path / f"set.{split}.inter").unlink()
    (tmp_path / "set.valid.inter.gz").unlink()
    with pytest.raises(DataError, match=r"there is no file .*set\.valid\.inter"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("names", [[], ["x.csv"], ["x.parquet", "y.item"], [".x.inter"]])
def test_a_folder_without_recbole_files(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("user_id,item_id\n")
    (tmp_path / "x.inter").mkdir()
    with pytest.raises(DataError, match=r"holds no file ending in \.inter"):
        load_dataset(tmp_path, format="recbole")
    with pytest.raises(DataError, match="several data sets"):
        (tmp_path / "a.inter").write_text("")
        (tmp_path / "b.inter.gz").write_text("")
        load_dataset(tmp_path, format="recbole")


SEQUENCES = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        (
            "set.train.inter",
            "u\ta\tb c\n",
            {},
            "set.train.inter, line 2: column 'item_id' holds 'b c'",
        ),
        (
            "set.test.inter",
            "\nu\ta\tb\n\nu\ta\tb  c\n",
            {},
            "set.test.inter, line 5: column 'item_id'",
        ),
        (
            "set.valid.inter",
            "u\t\tb\nu\ta\t\nu\ta\tb c\n",
            {"drop_missing": True},
            "set.valid.inter, line 4: column 'item_id' holds 'b c'; a target is one item",
        ),
        ("set.train.inter", "u\ta\tb\n", {"item_column": "asin"}, "there is no file"),
        ("set.train.inter", "", {}, "set.train.inter holds no sample"),
    ],
)
def test_malformed_sequence_form(
    tmp_path: Path, name: str, text: str, options: dict, message: str
) -> None:
    write_sequence_form(tmp_path, ".inter")
    (tmp_path / name).write_text(SEQUENCES + text)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path, **options)
    assert message in str(caught.value)
    if "asin" in str(options):
        assert "set.train.inter" in str(caught.value)
        assert "--data.item_column" in str(caught.value)


@pytest.mark.parametrize("name", [".train.inter", "train.inter", ".inter", "x.train.train.inter"])
def test_recbole_files_of_odd_names(tmp_path: Path, name: str) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    check(load_dataset(write_csv(tmp_path / name, header, delimiter="\t"), format="recbole"))
    (tmp_path / name).write_text(SEQUENCES + "u\ta\tb\n")
    with pytest.raises(DataError):
        load_dataset(tmp_path / name, format="recbole")


def test_recbole_has_no_quotes(tmp_path: Path) -> None:
    items = ['5" disk', '"x', '"', 'say ""x""', "a,b"]
    rows = [("u", item, time) for time, item in enumerate(items)]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    dataset = load_dataset(write_csv(tmp_path / "x.inter", header, rows, delimiter="\t"))
    assert samples(dataset, "test") == [(items[:-1], items[-1])]


def test_recbole_files_of_one_split_that_are_plain(tmp_path: Path) -> None:
    """Only rows with histories are samples; a file of interactions is one, whatever it is called."""
    header = "user_id:token\titem_id:token\ttimestamp:float"
    path = write_csv(tmp_path / "set.train.inter", header, delimiter="\t")
    dataset = load_dataset(path)
    check(dataset)
    assert dataset.notes == ()
    write_csv(tmp_path / "set.valid.inter", header, delimiter="\t")
    (note,) = load_dataset(path).notes
    assert note == "set.train.inter alone is read, not set.valid.inter beside it"


@pytest.mark.parametrize("name", ["x.train.csv", "x.valid.tsv", "x.test.parquet", "x.train.csv.gz"])
def test_a_file_is_what_it_is_called(tmp_path: Path, name: str) -> None:
    """Names that end like a split's mean nothing, but what lies beside them is said."""
    path = tmp_path / name
    table = pa.table(
        dict(zip(("user_id", "item_id", "timestamp"), zip(*ROWS, strict=True), strict=True))
    )
    if name.endswith("parquet"):
        pq.write_table(table, path)
    else:
        write_csv(path, "user_id,item_id,timestamp")
        if name.endswith("gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    dataset = load_dataset(path)
    check(dataset)
    assert dataset.notes == ()
    assert dataset.name == ".".join(name.split(".")[:2])
    split = name.split(".")[1]
    for other in {"train", "valid", "test"} - {split}:
        path.with_name(name.replace(split, other)).write_text("not looked at")
    dataset = load_dataset(path)
    check(dataset)
    (note,) = dataset.notes
    assert note.startswith(f"{name} alone is read, not x.")
    assert ("--data.format amazon23" in note) == ("parquet" not in name)


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
        ("x.inter", "user_id\titem_id:token\n1\t2\n", "field 'user_id' has no type"),
        ("x.inter", "user_id:token\titem_id:token\n1\t2\t3\n", "line 2"),
        ("x.inter", "user_id:token\tid:token\n1\t2\n", "its columns are 'user_id', 'id'"),
        ("x.parquet", "no parquet", "not a readable Parquet file"),
        ("x.txt", "user_id,item_id\n", "cannot tell the format of '.txt'; --data.format names it"),
        ("u.data", "1\t2\t3\t4\n1\t1\t3\tx\n", "line 2: 'x' is no time"),
        ("u.data", "1\t2\t3\t4\n1\t1\t3\n", "line 2: the row has 3 cells; there are 4 columns"),
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


def test_damaged_parquet(tmp_path: Path) -> None:
    """One line says so, whatever Arrow's own words are."""
    table = pa.table({"user_id": list(range(1000)) * 5, "item_id": list(range(5000))})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=100)
    whole = (tmp_path / "x.parquet").read_bytes()
    damaged = 0
    for place in range(4, len(whole), len(whole) // 150):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        (tmp_path / "x.parquet").write_bytes(changed)
        try:
            load_dataset(tmp_path / "x.parquet")
        except DataError as error:
            assert "\n" not in str(error)
            damaged += "x.parquet is not a readable Parquet file" in str(error)
    assert damaged > 10


KINDS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "categories": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_that_calls_any_bytes_text(tmp_path: Path, kind: str) -> None:
    """As writers of other languages do that take text as they find it."""
    names = [item.encode() for _, item, _ in ROWS]
    names[6] = "é".encode("latin-1")
    wrong = pa.array(names, pa.binary()).view(pa.string())
    if kind == "categories":
        wrong = wrong.cast(pa.binary()).dictionary_encode()
        wrong = pa.DictionaryArray.from_arrays(wrong.indices, wrong.dictionary.view(pa.string()))
    elif kind == "large_string":
        wrong = pa.array(names, pa.large_binary()).view(pa.large_string())
    elif kind == "string_view":
        wrong = pa.array(names, pa.binary_view()).view(pa.string_view())
    columns = {
        "user_id": pa.array([user for user, _, _ in ROWS]),
        "item_id": pa.array([item for _, item, _ in ROWS]),
        "timestamp": pa.array([time for _, _, time in ROWS]),
        "title": pa.array(["text"] * len(ROWS)),
    }
    path = tmp_path / "x.parquet"
    for name in ("user_id", "item_id", "timestamp"):
        pq.write_table(pa.table({**columns, name: wrong}), path)
        with pytest.raises(DataError, match=f"x.parquet, row 7: column '{name}' is not UTF-8"):
            load_dataset(path)
        # And where it is told which columns look like times.
        if name != "timestamp":
            pq.write_table(pa.table({**columns, name: wrong}).drop(["timestamp"]), path)
            with pytest.raises(DataError, match="is not UTF-8"):
                load_dataset(path)
    pq.write_table(pa.table({**columns, "title": wrong}), path)
    check(load_dataset(path))  # what is not read may hold anything
    pq.write_table(pa.table({**columns, "title": wrong}).drop(["timestamp"]), path)
    assert len(load_dataset(path).test)
    with pytest.raises(DataError, match="column 'title' is not UTF-8"):
        read_item_texts(path, "user_id", ["title"])


def test_a_part_whose_text_is_none(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", "b"] * 5, "item_id": [f"{i}" for i in range(10)]})
    pq.write_table(table, tmp_path / "0.parquet")
    bad = pa.array([b"x"] * 9 + [b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, "item_id", bad), tmp_path / "1.parquet", row_group_size=3)
    with pytest.raises(DataError, match="1.parquet, row 10: column 'item_id'"):
        load_dataset(tmp_path)


def test_empty_parquet(tmp_path: Path) -> None:
    empty = pa.table({"user_id": pa.array([], pa.int64()), "item_id": pa.array([], pa.int64())})
    pq.write_table(empty, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="holds no interaction"):
        load_dataset(tmp_path / "x.parquet")


def test_a_folder_of_parquet_parts(tmp_path: Path) -> None:
    users, items, times = zip(*ROWS, strict=True)
    table = pa.table({"user_id": users, "item_id": items, "timestamp": times})
    (tmp_path / "set").mkdir()
    for part in range(3):
        pq.write_table(table.slice(part * 5, 5), tmp_path / "set" / f"part-{part}.PARQUET")
    dataset = load_dataset(tmp_path / "set")
    check(dataset)
    assert dataset.source["format"] == "Parquet, 3 files"
    pq.write_table(
        table.slice(10, 5).set_column(1, "item_id", pa.array(["a", None, "b", "c", "d"])),
        tmp_path / "set" / "part-2.PARQUET",
    )
    with pytest.raises(DataError, match=r"part-2\.PARQUET, row 2: column 'item_id' is empty"):
        load_dataset(tmp_path / "set")
    pq.write_table(table.drop_columns("timestamp"), tmp_path / "set" / "part-2.PARQUET")
    with pytest.raises(DataError, match=r"part-2\.PARQUET has other columns than part-0\.PARQUET"):
        load_dataset(tmp_path / "set")


def test_parts_of_whole_and_of_missing_numbers(tmp_path: Path) -> None:
    """pandas writes whole numbers as real ones where one of them is missing."""
    for part, items in enumerate(([5, 3, 4], [3.0, 5.0, None])):
        table = pa.table({"user_id": [1, 1, 1], "item_id": items})
        pq.write_table(table, tmp_path / f"part-{part}.parquet")
    with pytest.raises(DataError, match=r"part-1\.parquet, row 3: column 'item_id' is empty"):
        load_dataset(tmp_path)
    dataset = load_dataset(tmp_path, drop_missing=True)
    assert samples(dataset, "test") == [([5, 3, 4, 3], 5)]


def test_missing_values(tmp_path: Path) -> None:
    rows = [
        ("u", "a", 1, ""), ("u", "b", 2, ""), ("", "x", 3, ""), ("u", "", 3, '"a\n\nb"'),
        ("u", "c", 3, ""), ("u", "d", "", ""), ("", " ", "", ""), ("u", "d", 5, ""), ("u", "e", 4, ""),
    ]  # fmt: skip
    path = write_csv(tmp_path / "x.csv", "user_id,item_id,timestamp,note", rows)
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert str(caught.value) == (
        f"{path}, line 4: column 'user_id' is empty; also {path}, line 5; {path}, line 9. 4 of 9 rows "
        "lack a value (2 in 'user_id', 2 in 'item_id', 2 in 'timestamp'); --data.drop_missing true "
        "leaves such rows out"
    )
    dataset = load_dataset(path, drop_missing=True)
    assert samples(dataset, "test") == [(["a", "b", "c", "e"], "d")]
    assert dataset.vocabulary.ids.tolist() == list("abcde")  # x stood in a row left out
    assert dataset.n_interactions == 5
    assert dataset.notes == (
        "left out: 4 of 9 rows lack a value (2 in 'user_id', 2 in 'item_id', 2 in 'timestamp')",
    )
    (tmp_path / "y.csv").write_text("user_id,item_id\n1,\n2,\n")
    with pytest.raises(DataError, match="all 2 rows lack a value"):
        load_dataset(tmp_path / "y.csv", drop_missing=True)


def test_ids_that_only_rows_left_out_have_do_not_count(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "x.csv", "user_id,item_id", [(1, 5), (1, 3), ("", "name"), (1, 4), (1, 9)]
    )
    assert load_dataset(path, drop_missing=True).vocabulary.ids.tolist() == [3, 4, 5, 9]


def test_digest(tmp_path: Path) -> None:
    """Data has one digest in every form that keeps its ids, and another as soon as anything differs."""
    users, items, times = zip(*ROWS, strict=True)
    names = ("user_id", "item_id", "timestamp")
    pq.write_table(
        pa.table(dict(zip(names, (users, items, times), strict=True))), tmp_path / "x.parquet"
    )
    digest = load_dataset(tmp_path / "x.parquet").digest()
    assert digest == "e9dfe585f7496fedd130d0b4bab3173a"  # on every machine
    write_csv(tmp_path / "y.csv", ",".join(names))
    write_csv(
        tmp_path / "z" / "z.inter", "\t".join(f"{name}:token" for name in names), delimiter="\t"
    )
    shuffled = sorted(ROWS, key=lambda row: row[2])
    write_csv(tmp_path / "w.csv", ";".join(names[::-1]), [row[::-1] for row in shuffled], ";")
    write_sequence_form(tmp_path / "s", ".inter.gz")
    for other in ("y.csv", "z", "w.csv", "s"):
        assert load_dataset(tmp_path / other).digest() == digest, other
    changed = {
        "an item": [*ROWS[:-1], ("u4", "a", 5)],
        "an order": [("u1", "b", 1), ("u1", "a", 2), *ROWS[2:]],
        "a row more": [*ROWS, ("u4", "c", 9)],
        "a row less": ROWS[:-1],
        "a name": [(user, item.replace("e", "f"), time) for user, item, time in ROWS],
    }
    digests = {digest}
    for rows in changed.values():
        digests.add(load_dataset(write_csv(tmp_path / "v.csv", ",".join(names), rows)).digest())
    assert len(digests) == 1 + len(changed)
    numbers = [(1, 5), (1, 3), (1, 4), (1, 5)]
    path = write_csv(tmp_path / "n.csv", "user_id,item_id", numbers)
    kinds = {load_dataset(path).digest(), load_dataset(path, text_ids=True).digest()}
    assert len(kinds) == 2
    for kind in (pa.int8(), pa.int64(), pa.uint64(), pa.float64()):
        table = pa.table({"user_id": [1] * 4, "item_id": pa.array([5, 3, 4, 5], kind)})
        pq.write_table(table, tmp_path / "n.parquet")
        assert load_dataset(tmp_path / "n.parquet").digest() in kinds
    dataset = load_dataset(path)
    moved = dataset.with_vocabulary(Vocabulary([1, 3, 4, 5]))
    assert moved.digest() != dataset.digest()
    wider = load_dataset(path).with_vocabulary(Vocabulary([1, 3, 4, 5]))
    assert wider.digest() == moved.digest()
