"""Lists in files: the same from any number of parts, and after any stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lares import Recommender
from lares.errors import CheckpointError, ConfigError, DataError
from lares.recommender import bulk
from lares.recommender.asked import Asked, asked_by_histories, asked_by_users, item_lists
from lares.recommender.bulk import write_lists
from lares.recommender.ranked import How, ListMaker
from lares.recommender.spooled import HistorySpool
from lares.recommender.titles import read_titles
from lares.table_files import FORMS
from lares.training.lock import held

Said = list[str]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty users are four parts of several batches."""
    monkeypatch.setattr(bulk, "PART", 16)
    monkeypatch.setattr("lares.recommender.ranked.BATCH", 5)


@pytest.fixture
def asked(fitted: Recommender) -> Asked:
    return asked_by_users(None, fitted._known_sequences())


def maker(fitted: Recommender, asked: Asked, exclude: Any = (), **more: Any) -> ListMaker:
    lists = item_lists("exclude", exclude, asked, fitted._vocabulary)
    how = {"k": 4, "remove_history": True, "only": None, "depth": None, "seed": None}
    return ListMaker(fitted.model, fitted._vocabulary, How(exclude=lists, **{**how, **more}))


def read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".csv":
        return pa.csv.read_csv(path)
    return pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()])


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return [
        (row["user"], row["item"], pytest.approx(row["score"], rel=1e-6), row["rank"])
        for row in table.to_pylist()
    ]


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int, how: Callable[[], None]) -> None:
    """Have making lists stop after so many batches, once."""
    lists_table, left = bulk.ListMaker.tables, [batches]

    def tables(*args: Any) -> Any:
        for table in lists_table(*args):
            left[0] -= 1
            if left[0] == 0:
                how()
            yield table

    monkeypatch.setattr(bulk.ListMaker, "tables", tables)


@pytest.mark.parametrize("ending", FORMS)
def test_a_file_has_what_recommend_gives(
    ending: str, tmp_path: Path, fitted: Recommender, asked: Asked
) -> None:
    output = tmp_path / f"lists{ending}"
    write_lists(output, maker(fitted, asked), asked)
    assert read(output).column_names == ["user", "item", "score", "rank"]
    assert rows(read(output)) == rows(fitted.recommend(k=4))
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize(
    ("ending", "batches"), [(".parquet", 1), (".parquet", 4), (".csv", 5), (".jsonl", 13)]
)
def test_a_run_that_failed_goes_on_to_the_same_file(
    ending: str, batches: int, tmp_path: Path, fitted: Recommender, asked: Asked, monkeypatch
) -> None:
    whole, output = tmp_path / f"whole{ending}", tmp_path / f"lists{ending}"
    write_lists(whole, maker(fitted, asked), asked)

    def fail() -> None:
        raise MemoryError("enough")

    with monkeypatch.context() as patch:
        stop_after(patch, batches, fail)
        with pytest.raises(MemoryError):
            write_lists(output, maker(fitted, asked), asked)
    assert not output.exists()
    # As one that is killed leaves them.
    others = [tmp_path / f".{name}.0123abcd.part" for name in (output.name, "mine.csv")]
    for path in others:
        path.touch()
    made: list[int] = []
    said: Said = []
    with monkeypatch.context() as patch:
        stop_after(patch, 0, lambda: None)
        tables = bulk.ListMaker.tables
        patch.setattr(
            bulk.ListMaker,
            "tables",
            lambda self, part, first: made.append(len(part)) or tables(self, part, first),
        )
        write_lists(output, maker(fitted, asked), asked, say=said.append)
    kept = (batches - 1) // 4 * 16  # four batches a part
    assert sum(made) == 60 - kept
    assert said == (
        [f"{output}.parts has the lists of {kept} users already; they are kept"] * (kept > 0)
    )
    assert output.read_bytes() == whole.read_bytes()
    assert {*tmp_path.iterdir()} == {output, whole, others[1]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_made(
    number: int, tmp_path: Path, fitted: Recommender, asked: Asked, monkeypatch
) -> None:
    output = tmp_path / "lists.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, 6, lambda: os.kill(os.getpid(), number))
        with pytest.raises(
            bulk.Interrupted, match="the lists of 16 of 60 users are kept"
        ) as caught:
            write_lists(output, maker(fitted, asked), asked)
    assert caught.value.exit_status == 128 + number
    write_lists(output, maker(fitted, asked), asked)
    assert rows(read(output)) == rows(fitted.recommend(k=4))


OF_EACH = {
    "exclude": {3: [5, 6], 50: [1]},
    "only": {user: [*range(user % 5, 25)][1:] for user in range(1, 61)},
}


@pytest.mark.parametrize("option", OF_EACH)
def test_lists_of_their_own(option: str, tmp_path: Path, fitted: Recommender) -> None:
    """In whichever part a user is."""
    output = tmp_path / "lists.parquet"
    fitted.recommend_to_file(output, k=5, **{option: OF_EACH[option]})
    assert rows(read(output)) == rows(fitted.recommend(k=5, **{option: OF_EACH[option]}))
    fitted.recommend_to_file(output, [50, 2], k=3, progress=False)
    assert rows(read(output)) == rows(fitted.recommend([50, 2], k=3))


def test_one_writer(tmp_path: Path, fitted: Recommender, asked: Asked) -> None:
    output, folder = tmp_path / "lists.csv", tmp_path / "lists.csv.parts"
    folder.mkdir()
    with held(folder), pytest.raises(ConfigError, match="is in use.*give another --output"):
        write_lists(output, maker(fitted, asked), asked)
    write_lists(output, maker(fitted, asked), asked)


def test_no_folder_stays_without_a_part(
    tmp_path: Path, fitted: Recommender, asked: Asked, monkeypatch
) -> None:
    stop_after(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(bulk.Interrupted, match="the lists of 0 of 60 users"):
        write_lists(tmp_path / "lists.csv", maker(fitted, asked), asked)
    assert not list(tmp_path.iterdir())


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "k": ({"k": 3}, "k"),
    "history": ({"remove_history": False}, "keep_history"),
    "depth": ({"depth": 2}, "depth"),
    "seed": ({"seed": 9}, "seed"),
    "exclude": ({"exclude": [3]}, "exclude"),
    "exclude of one": ({"exclude": {50: [3]}}, "exclude"),
    "titles": ({"titles": pa.array(["x"] * 25)}, "items"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_other_lists_are_not_kept(
    change: str, tmp_path: Path, fitted: Recommender, asked: Asked, monkeypatch
) -> None:
    options, named = CHANGES[change]
    expected, output = tmp_path / "expected.csv", tmp_path / "lists.csv"
    write_lists(expected, maker(fitted, asked, **options), asked)
    with monkeypatch.context() as patch:
        stop_after(patch, 9, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(bulk.Interrupted):
            write_lists(output, maker(fitted, asked), asked)
    said: Said = []
    write_lists(output, maker(fitted, asked, **options), asked, say=said.append)
    (told,) = said
    assert f"(what differs: {named})" in told
    assert "begin anew" in told
    assert output.read_bytes() == expected.read_bytes()


def test_other_users_and_other_weights_are_other_lists(
    fitted: Recommender, asked: Asked, monkeypatch
) -> None:
    def differ(other: dict[str, Any]) -> list[str]:
        return [name for name in other if other[name] != first[name]]

    first = bulk._marks(maker(fitted, asked), asked)
    assert differ(bulk._marks(maker(fitted, asked), asked)) == []
    fewer = asked.part(0, 59)
    assert differ(bulk._marks(maker(fitted, fewer), fewer)) == ["users or histories"]
    changed = asked.items.copy()
    changed[7] = changed[7] % 25 + 1
    other = Asked(asked.users, changed, asked.starts, asked.stops, asked.known)
    assert differ(bulk._marks(maker(fitted, other), other)) == ["users or histories"]
    made = maker(fitted, asked)
    made.model = made.model.__class__(made.model.config, vocabulary=made.model.vocabulary)
    assert differ(bulk._marks(made, asked)) == ["model"]


def test_what_is_no_part_stays(tmp_path: Path, fitted: Recommender, asked: Asked) -> None:
    folder = tmp_path / "lists.csv.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"thesis\.txt, which is none"):
        write_lists(tmp_path / "lists.csv", maker(fitted, asked), asked)
    assert (folder / "thesis.txt").read_text() == "mine"
    (tmp_path / "more.csv.parts").write_text("mine, too")
    with pytest.raises(ConfigError, match="must be a folder"):
        write_lists(tmp_path / "more.csv", maker(fitted, asked), asked)


@pytest.mark.parametrize("name", ["lists.txt", "lists", "lists.csv.gz", ".csv"])
def test_other_forms_are_refused(
    name: str, tmp_path: Path, fitted: Recommender, asked: Asked
) -> None:
    with pytest.raises(ConfigError, match=r"must end in one of \.parquet, \.csv, \.jsonl"):
        write_lists(tmp_path / name, maker(fitted, asked), asked)
    assert not list(tmp_path.iterdir())


def test_spooled_histories_are_as_given(tmp_path: Path, fitted: Recommender) -> None:
    histories = [[3, 4, 5], [1], [], [25, 24]]
    spool = HistorySpool(tmp_path)
    spool.add(histories[:2])
    spool.add([])
    spool.add(histories[2:])
    asked = spool.asked()
    assert [history.tolist() for history in asked.histories()] == histories
    assert asked.users.to_pylist() == [0, 1, 2, 3]
    emptied = maker(fitted, asked, emptied=np.array([9, 8]))
    output = tmp_path / "lists.jsonl"
    write_lists(output, emptied, asked)
    found = read(output).to_pylist()
    served = asked_by_histories([histories[0], histories[1], histories[3]], fitted._vocabulary)
    (expected,) = maker(fitted, served).tables(served)
    assert [row["item"] for row in found if row["user"] != 2] == expected["item"].to_pylist()
    assert [row for row in found if row["user"] == 2] == [
        {"user": 2, "item": 9, "score": None, "rank": 1},
        {"user": 2, "item": 8, "score": None, "rank": 2},
    ]
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert len(HistorySpool(tmp_path).asked()) == 0


def test_nobody(tmp_path: Path, fitted: Recommender, asked: Asked) -> None:
    output = tmp_path / "lists.csv"
    write_lists(output, maker(fitted, asked), asked.part(0, 0))
    assert output.read_text() == "user,item,score,rank\n"


TITLES = {
    "x.csv": "item_id,title\n3,Three\n1,\n99,More\n",
    "names.csv": 'id,name\n3,Three\n99,"More, more"\n',
    "movies.csv": "movieId,title,genres\n3,Three,Drama\n99,More,Comedy\n",
    "x.jsonl": '{"parent_asin": "3", "title": "Three"}\n{"parent_asin": "4", "title": null}\n',
    "movies.dat": "3::Three::Drama\n99::M\xe9r\x85e::Comedy\n",
    "u.item": "3|Three|01-Jan-1995\n99|More|\n",
}


@pytest.mark.parametrize("name", TITLES)
def test_titles(name: str, tmp_path: Path, fitted: Recommender) -> None:
    path = tmp_path / name
    path.write_text(TITLES[name], encoding="latin-1")
    found = read_titles(path, fitted._vocabulary).to_pylist()
    assert found == [None, None, "Three", *[None] * 22]


def test_titles_in_columns_that_are_named(tmp_path: Path, fitted: Recommender) -> None:
    path = tmp_path / "x.csv"
    path.write_text("item_id,film,en\n3,8,Three\n4,3,Four\n")
    assert read_titles(path, fitted._vocabulary, ["film", "en"]).to_pylist()[:8][2::5] == [
        "Four",
        "Three",
    ]
    for content, message in (
        ("film,en\n3,Three\n", "--item_columns ID,TITLE says which"),
        ("id,title\n77,Three\n", "none of its 1 items is known to the model, such as '77'"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_titles(path, fitted._vocabulary)
    (tmp_path / "u.item").write_text("3\n")
    with pytest.raises(DataError, match="not MovieLens' file of items"):
        read_titles(tmp_path / "u.item", fitted._vocabulary)
