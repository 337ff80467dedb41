"""Forms that are known by names of files and first lines, each with the same interactions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lares.data import load_dataset
from lares.data.forms import FORMS
from lares.errors import DataError
from tests.data.tables import write_text

# Users, items and times; those of user 2 out of order.
ROWS = [
    (1, 10, 978300760), (1, 30, 978300761), (1, 20, 978300762), (1, 10, 978300763),
    (2, 30, 978300799), (2, 20, 978300762), (2, 40, 978300764), (2, 10, 978300770),
    (3, 20, 978300760), (3, 30, 978300770), (3, 10, 978300780),
]  # fmt: skip
ORDERED = sorted(ROWS, key=lambda row: (row[0], row[2]))
RATED = [(user, item, 5, time) for user, item, time in ROWS]
HEADER = ("user_id", "item_id", "timestamp")


def asin(item: int) -> str:
    return f"B00000{item:04}"


def reviewer(user: int) -> str:
    return f"A{user:013}"


AMAZON = [(reviewer(user), asin(item), "5.0", time) for user, item, time in ROWS]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return load_dataset(write_text(tmp_path_factory.mktemp("csv") / "x.csv", ROWS)).digest()


def files_of_movielens(folder: Path, release: str) -> Path:
    """A folder as the archive has it, with other files beside the ratings."""
    folder.mkdir()
    (folder / "README.txt").write_text("SUMMARY\n")
    if release == "100k":
        return write_text(folder / "u.data", RATED, "\t", header=())
    if release == "1m":
        (folder / "movies.dat").write_text("10::Toy Story (1995)::Animation\n")
        return write_text(folder / "ratings.dat", RATED, "::", header=())
    (folder / "movies.csv").write_text("movieId,title,genres\n10,Toy Story (1995),Animation\n")
    return write_text(
        folder / "ratings.csv", RATED, header=("userId", "movieId", "rating", "timestamp")
    )


@pytest.mark.parametrize("release", ["100k", "1m", "latest-small"])
def test_movielens(tmp_path: Path, expected: str, release: str) -> None:
    file = files_of_movielens(tmp_path / f"ml-{release}", release)
    for path in (file, file.parent):
        for form in ("auto", "movielens"):
            dataset = load_dataset(path, format=form)
            assert dataset.digest() == expected
            assert dataset.name == f"ml-{release}"
            assert dataset.source["format"].startswith("MovieLens")
            assert dataset.source["times"] == "column 'timestamp', whole numbers"
    assert load_dataset(file).source["known by"] == f"the name {file.name}"


def test_a_file_of_ones_own_that_is_called_ratings(tmp_path: Path, expected: str) -> None:
    dataset = load_dataset(write_text(tmp_path / "ratings.csv", ROWS))
    assert dataset.digest() == expected
    assert dataset.source["known by"] == "suffix .csv"


def test_columns_as_movielens_calls_them(tmp_path: Path, expected: str) -> None:
    path = write_text(tmp_path / "films.csv", RATED, header=("userId", "movieId", "r", "timestamp"))
    dataset = load_dataset(path)
    assert dataset.digest() == expected
    assert dataset.source["columns"] == "users 'userId', items 'movieId', as in MovieLens"


def test_two_files_of_ratings_in_a_folder(tmp_path: Path) -> None:
    files_of_movielens(tmp_path / "ml", "1m")
    write_text(tmp_path / "ml" / "u.data", RATED, "\t", header=())
    with pytest.raises(DataError, match=r"holds .* and .*; name one file of MovieLens"):
        load_dataset(tmp_path / "ml")


def test_sasrec_text(tmp_path: Path, expected: str) -> None:
    rows = [row[:2] for row in ORDERED]
    dataset = load_dataset(write_text(tmp_path / "ml-1m.txt", rows, " ", header=()))
    assert dataset.digest() == expected
    assert dataset.notes == ()
    assert dataset.source["times"] == "order of the rows"
    (tmp_path / "bad.txt").write_text("1 2\n1 3 4\n")
    with pytest.raises(DataError, match=r"bad\.txt, line 2: the row has 3 cells"):
        load_dataset(tmp_path / "bad.txt", format="sasrec")


def write_user_lines(path: Path) -> Path:
    lines = [
        " ".join(map(str, [user, *(item for of, item, _ in ORDERED if of == user)]))
        for user in (1, 2, 3)
    ]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def test_s3rec_text(tmp_path: Path, expected: str) -> None:
    dataset = load_dataset(write_user_lines(tmp_path / "Beauty.txt"))
    assert dataset.digest() == expected
    assert dataset.notes == ()
    (tmp_path / "bad.txt").write_text("1 2 3\n\n7\n")
    with pytest.raises(DataError, match=r"bad\.txt, line 3: user '7' has no item"):
        load_dataset(tmp_path / "bad.txt", format="s3rec")


def test_text_that_may_be_either(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 5\n2 6\n3 5\n")
    with pytest.raises(DataError, match=r"x\.txt may be one of sasrec \(.*\), s3rec \(.*names the"):
        load_dataset(tmp_path / "x.txt")
    (tmp_path / "y.txt").write_text("1 5 3\n2 6 3\n")
    with pytest.raises(DataError, match=r"cannot tell the format of '\.txt'"):
        load_dataset(tmp_path / "y.txt")


@pytest.mark.parametrize(
    ("form", "order"), [("amazon14", (0, 1, 2, 3)), ("amazon18", (1, 0, 2, 3))]
)
def test_amazon_ratings(tmp_path: Path, form: str, order: tuple[int, ...]) -> None:
    rows = [[row[place] for place in order] for row in AMAZON]
    dataset = load_dataset(write_text(tmp_path / "Beauty.csv", rows, header=()))
    named = ("user_id", "item_id", "rating", "timestamp")
    same = load_dataset(write_text(tmp_path / "named.csv", AMAZON, header=named))
    assert dataset.digest() == same.digest()
    assert "column" in dataset.source["known by"]
    header = [("user", "item", "rating", "timestamp")[place] for place in order]
    same = load_dataset(write_text(tmp_path / "header.csv", rows, header=header))
    assert dataset.digest() == same.digest()


def test_ratings_without_header_of_unknown_order(tmp_path: Path, expected: str) -> None:
    path = write_text(tmp_path / "log.csv", RATED, header=())
    with pytest.raises(DataError, match=r"may be one of amazon18 .*, amazon14 .*header false"):
        load_dataset(path)
    columns = {"user_column": "0", "item_column": "1", "time_column": "3"}
    assert load_dataset(path, header=False, **columns).digest() == expected
    assert load_dataset(path, format="amazon14").digest() == expected
    # The files of 2014 are called so.
    assert load_dataset(path.rename(tmp_path / "ratings_X.csv")).digest() == expected


def test_text_without_header(tmp_path: Path, expected: str) -> None:
    path = write_text(tmp_path / "log.tsv", ROWS, "\t", header=())
    bare = write_text(tmp_path / "log", ROWS, "\t", header=())
    for text in (path, bare):
        columns = {"user_column": "0", "item_column": "1", "time_column": "2"}
        dataset = load_dataset(text, header=False, **columns)
        assert dataset.digest() == expected
    with pytest.raises(DataError, match=r"has no column 'user_id'.*'0', '1', '2'.*user_column 0"):
        load_dataset(text, header=False)
    with pytest.raises(DataError, match=r"has no column '0'.*--data.header false"):
        load_dataset(text, format="csv", user_column="0")
    with pytest.raises(DataError, match="header=False is for text with delimiters"):
        load_dataset(text, header=False, format="parquet")


def write_json(path: Path, rows=ROWS, names=HEADER) -> Path:
    lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    data = "".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz", ".ndjson"])
def test_json_lines(tmp_path: Path, expected: str, ending: str) -> None:
    path = write_json(tmp_path / f"x{ending}")
    dataset = load_dataset(path)
    assert dataset.digest() == expected
    assert dataset.source["format"] == "JSON lines"
    assert load_dataset(tmp_path).digest() == expected


def test_json_lines_by_python_alone(tmp_path: Path, expected: str, monkeypatch) -> None:
    """What DuckDB does not read, as of names that are not UTF-8, reads the same."""
    from lares.data.formats.json_lines import JsonTable

    monkeypatch.setattr(JsonTable, "query", lambda self, part, columns: None)
    assert load_dataset(write_json(tmp_path / "x.jsonl")).digest() == expected


def test_amazon_reviews_in_json(tmp_path: Path) -> None:
    rows = [(*row, {"helpful": [1, 2]}, 'a, "b"\n') for row in AMAZON]
    names = ("reviewerID", "asin", "overall", "unixReviewTime", "votes", "reviewText")
    dataset = load_dataset(write_json(tmp_path / "reviews_Beauty_5.json.gz", rows, names))
    named = ("user_id", "item_id", "rating", "timestamp")
    same = load_dataset(write_text(tmp_path / "named.csv", AMAZON, header=named))
    assert dataset.digest() == same.digest()
    assert dataset.source["columns"].endswith("as in Amazon's reviews of 2014 and 2018")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user_id": 1, "item_id": 2}\n\n{"user_id": 1, "item_id"}\n', "line 3: .* is no JSON"),
        ('[{"user_id": 1}]\n', "line 1: .* is no JSON object; write one object a line"),
        ('{"user_id": 1, "item_id": 2}\n{"user_id": 1}\n', "line 2: column 'item_id' is empty"),
        ('{"user_id": 1, "item_id": 2}\n{"user_id": 1, "item_id": null}\n', "line 2: column 'item"),
        ('{"user": 1}\n', "has no column 'user_id', 'item_id'; its columns are 'user'"),
        ("", "is empty"),
    ],
)  # fmt: skip
def test_bad_json_lines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=rf"x\.jsonl.*{message}"):
        load_dataset(tmp_path / "x.jsonl")


def test_folders_of_several_forms(tmp_path: Path) -> None:
    write_text(tmp_path / "x.csv", ROWS)
    write_json(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match="holds both JSON lines and CSV files; name one"):
        load_dataset(tmp_path)


def test_every_form_can_be_asked_for(tmp_path: Path) -> None:
    """And says what it lacks, of a file that is none of it."""
    (tmp_path / "x").write_text("nothing\n")
    for form in FORMS:
        with pytest.raises(DataError):
            load_dataset(tmp_path / "x", format=form)
