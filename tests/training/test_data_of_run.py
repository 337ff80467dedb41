"""A run belongs to its data: wherever they lie, and to no others."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lares.cli import main
from lares.data import load_dataset
from lares.data.digest import former_digest
from lares.errors import DataError
from lares.training.data_record import DataRecord
from lares.training.rpt import posttrain
from lares.training.spt import train
from tests.conftest import write_interactions
from tests.training.helpers import small_config, small_posttrain_config

Rows = list[tuple[int, int]]


def read_rows(path: Path) -> Rows:
    table = pq.read_table(path)
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def write_csv(path: Path, rows: Rows, names: tuple[str, str] = ("user_id", "item_id")) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture(scope="module")
def trained(interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("belongs") / "run"
    train(small_config(interactions, trainer={"max_epochs": 1}), folder, progress=False)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def fewer_users(rows: Rows) -> Rows:
    return [row for row in rows if row[0] <= 40]


def another_user(rows: Rows) -> Rows:
    return [*rows, (1000, 1), (1000, 2), (1000, 3), (1000, 4)]


def another_item(rows: Rows) -> Rows:
    return [*rows, (60, 1000)]


def an_item_renamed(rows: Rows) -> Rows:
    return [(user, 1000 if item == 25 else item) for user, item in rows]


def a_row_changed(rows: Rows) -> Rows:
    user, item = rows[0]
    return [(user, item % 25 + 1), *rows[1:]]


def two_rows_swapped(rows: Rows) -> Rows:
    place = next(i for i in range(len(rows)) if rows[i][0] == rows[i + 1][0])
    return [*rows[:place], rows[place + 1], rows[place], *rows[place + 2 :]]


CHANGES = {
    fewer_users: "40 users instead of 60",
    another_user: "61 users instead of 60, ",
    another_item: "26 items instead of 25, ",
    an_item_renamed: "rows differ",
    a_row_changed: "rows differ",
    two_rows_swapped: "rows differ",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_data_are_refused(interactions: Path, run: Path, tmp_path: Path, change: Any) -> None:
    other = write_csv(tmp_path / "other.csv", change(read_rows(interactions)))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    config = small_config(other, trainer={"max_epochs": 3})
    with pytest.raises(DataError) as caught:
        train(config, run, resume=True, progress=False)
    assert f"{other} is not the data that {run} began with: " in str(caught.value)
    assert CHANGES[change] in str(caught.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    config = small_posttrain_config(other, run)
    with pytest.raises(DataError) as caught:
        posttrain(config, tmp_path / "rpt", progress=False)
    assert CHANGES[change] in str(caught.value)
    assert f"give {run / 'best'}" in str(caught.value)
    assert not (tmp_path / "rpt").exists()


def test_other_filters_leave_other_data(interactions: Path, run: Path) -> None:
    longer = {"max_epochs": 2}
    for options in ({"where": "item_id != 3"}, {"where": "user_id <= 40"}):
        config = small_config(interactions, data=options, trainer=longer)
        with pytest.raises(DataError, match="interactions instead of"):
            train(config, run, resume=True, progress=False)
    same = small_config(interactions, data={"where": "item_id > 0"}, trainer=longer)
    assert train(same, run, resume=True, progress=False).epochs == 2


def test_the_same_data_elsewhere_go_on(interactions: Path, run: Path, tmp_path: Path) -> None:
    """At another path, in another form of file, under other names of columns."""
    moved = write_csv(tmp_path / "moved.csv", read_rows(interactions), ("who", "what"))
    data = {"user_column": "who", "item_column": "what"}
    config = small_config(moved, data=data, trainer={"max_epochs": 2})
    assert train(config, run, resume=True, progress=False).epochs == 2
    whole = small_config(interactions, trainer={"max_epochs": 2})
    train(whole, tmp_path / "whole", progress=False)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    after = small_posttrain_config(moved, run, data=data, trainer={"max_epochs": 1})
    posttrain(after, tmp_path / "rpt", progress=False)


def test_a_post_trained_run_belongs_to_its_data(
    interactions: Path, run: Path, tmp_path: Path
) -> None:
    config = small_posttrain_config(interactions, run, trainer={"max_epochs": 1})
    posttrain(config, tmp_path / "rpt", progress=False)
    other = write_csv(tmp_path / "other.csv", fewer_users(read_rows(interactions)))
    with pytest.raises(DataError, match="40 users instead of 60"):
        posttrain(small_posttrain_config(other, run), tmp_path / "rpt", resume=True)


def test_a_model_without_its_run_takes_any_data_it_knows(
    interactions: Path, run: Path, tmp_path: Path
) -> None:
    other = write_csv(tmp_path / "other.csv", fewer_users(read_rows(interactions)))
    config = small_posttrain_config(other, run / "best", trainer={"max_epochs": 1})
    posttrain(config, tmp_path / "rpt", progress=False)
    unknown = write_csv(tmp_path / "unknown.csv", another_item(read_rows(interactions)))
    with pytest.raises(DataError, match="item 1000 is unknown to this catalogue of 25 items"):
        posttrain(small_posttrain_config(unknown, run / "best"), tmp_path / "no", progress=False)


def test_runs_from_before_go_on_without(interactions: Path, run: Path, tmp_path: Path) -> None:
    (run / "data.json").unlink()
    longer = small_config(interactions, trainer={"max_epochs": 2})
    assert train(longer, run, resume=True, progress=False).epochs == 2
    assert not (run / "data.json").exists()  # nobody knows which data the first epoch saw
    other = write_csv(tmp_path / "other.csv", an_item_renamed(read_rows(interactions)))
    with pytest.raises(DataError, match="its items are others"):
        train(small_config(other, trainer={"max_epochs": 3}), run, resume=True, progress=False)


def as_formerly(record: Path, data: Path) -> None:
    """Make a run's record what it was before it told the form of its digest."""
    content = json.loads(record.read_text())
    assert content.pop("form") == 2
    loaded = load_dataset(data)
    former = former_digest(loaded.vocabulary, loaded.splits)
    record.write_text(json.dumps({**content, "digest": former}))


def test_runs_with_a_record_of_the_former_form(
    interactions: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_formerly(run / "data.json", interactions)
    before = (run / "data.json").read_text()
    other = write_csv(tmp_path / "other.csv", two_rows_swapped(read_rows(interactions)))
    same = write_csv(tmp_path / "same.csv", read_rows(interactions))
    longer = {"max_epochs": 2}
    with pytest.raises(DataError, match="is not the data that"):
        train(small_config(other, trainer=longer), run, resume=True, progress=False)
    assert train(small_config(same, trainer=longer), run, resume=True, progress=False).epochs == 2
    assert (run / "data.json").read_text() == before
    with pytest.raises(DataError, match="is not the data that .* was trained on"):
        posttrain(small_posttrain_config(other, run), tmp_path / "rpt", progress=False)
    for path in (same, other):
        main(["evaluate", str(run), str(path), "--depths=1"])
        assert ("other data than" in capsys.readouterr().err) == (path == other)


def test_the_record_says_what_it_is_of(interactions: Path, run: Path) -> None:
    record = DataRecord.load(run / "data.json")
    rows = read_rows(interactions)
    assert record is not None
    assert (record.users, record.items, record.interactions) == (60, 25, len(rows))
    assert json.loads((run / "data.json").read_text())["digest"] == record.digest
    counts = load_dataset(interactions).item_counts()[record.popular].tolist()
    assert counts == sorted(counts, reverse=True)
    assert len(set(record.popular)) == 25


def test_who_is_left_with_nothing_gets_what_is_popular(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = DataRecord.load(run / "data.json")
    assert record is not None
    asked = ["recommend", str(run), "--history=999", "--unknown=skip", "--k=4"]
    main([*asked, "--emptied=popular"])
    assert capsys.readouterr().out == ",".join(map(str, record.popular[:4])) + "\n"
    main(["recommend", str(run), "--history=3,4", "--k=4", "--emptied=popular"])
    assert capsys.readouterr().out != ",".join(map(str, record.popular[:4])) + "\n"
    for wrong, message in (
        ([*asked, "--emptied=popular", "--k=26"], "the 25 most popular items alone"),
        ([*asked, "--emptied=line"], "--emptied is 'line'"),
        (
            ["recommend", str(run / "best"), *asked[2:], "--emptied=popular"],
            "give the folder of a run",
        ),
    ):
        with pytest.raises(SystemExit):
            main(wrong)
        assert message in capsys.readouterr().err


def test_evaluation_on_other_data(
    interactions: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", str(run), str(interactions), "--depths=1"])
    assert "note" not in capsys.readouterr().err
    other = write_csv(tmp_path / "other.csv", fewer_users(read_rows(interactions)))
    main(["evaluate", str(run), str(other), "--depths=1"])
    assert "other data than" in capsys.readouterr().err


def test_evaluation_without_what_is_unknown(
    interactions: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(interactions)
    wider = [*rows, (1, 1000), (2, 999), (2, 3), *((500, item) for item in (1, 2, 3, 4))]
    path = write_csv(tmp_path / "wider.csv", wider)
    arguments = ["evaluate", str(run), str(path), "--depths=1", f"--output={tmp_path / 'x.json'}"]
    with pytest.raises(SystemExit):
        main(arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "item 999 and 1 others are unknown to this catalogue of 25 items" in error
    assert "--unknown skip" in error
    main([*arguments, "--unknown=skip"])
    told = capsys.readouterr()
    assert "2 items that the model does not know: 1 valid, 2 test samples" in told.err
    # What is left: all users but 1 and 2, whose last items are unknown, and user 500.
    kept = [row for row in wider if row[0] not in (1, 2)]
    main([*arguments[:2], str(write_csv(tmp_path / "kept.csv", kept)), *arguments[3:-1]])
    table = capsys.readouterr().out
    assert table == told.out
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), str(strangers(tmp_path)), "--unknown=skip"])
    assert "not one of the 12 items" in capsys.readouterr().err


def strangers(folder: Path) -> Path:
    items = np.arange(100, 112).tolist()
    return write_csv(folder / "strangers.csv", [(u, i) for u in (1, 2) for i in items])


def test_more_users_of_the_same_kind_are_other_data(tmp_path: Path) -> None:
    few, many = (
        DataRecord.of(load_dataset(write_interactions(tmp_path / f"{n}.parquet", n_users=n)))
        for n in (50, 60)
    )
    assert few.difference(few) == ""
    assert "60 users instead of 50" in few.difference(many)
