"""``lares recommend --output FILE``: whose lists, of which items, and how it says no."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lares import LaresModel, Recommender
from lares.cli import main
from tests.conftest import write_interactions
from tests.recommender.helpers import histories, small


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the recommender that made it, saved, and their data; nobody may change them."""
    folder = tmp_path_factory.mktemp("bulk")
    data = write_interactions(folder / "walks.parquet")
    made = small().fit(data, folder=folder / "run", progress=False)
    made.save(folder / "saved")
    return folder


@pytest.fixture(scope="module")
def made(places: Path) -> Recommender:
    return Recommender.load(places / "saved")


def fails(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The last line that the command prints, which fails; notes may stand before it."""
    with pytest.raises(SystemExit) as caught:
        main(["recommend", *map(str, argv)])
    assert caught.value.code == 2
    *notes, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert all(note.startswith("note: ") for note in notes)
    return error


def written(output: Path, *argv: str | Path) -> list[dict[str, str]]:
    """The rows of the CSV file that the command writes."""
    main(["recommend", *map(str, argv), f"--output={output}"])
    with output.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows(table: Any) -> list[dict[str, str]]:
    """What a recommender gives, as CSV has it, scores rounded."""
    return rounded([{name: str(value) for name, value in row.items()} for row in table.to_pylist()])


def rounded(found: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**row, "score": row["score"] and f"{float(row['score']):.4f}"} for row in found]


@pytest.mark.parametrize("model", ["run", "saved"])
def test_everybody_in_the_data(
    model: str, places: Path, made: Recommender, tmp_path: Path, capsys
) -> None:
    found = written(tmp_path / "lists.csv", places / model, "--users=all", "--k=4")
    assert rounded(found) == rows(made.recommend(k=4))
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'lists.csv'}: the lists of 60 users\n"
    assert printed.err == ""


OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "history": (("--keep_history",), {"remove_history": False}),
    "depth": (("--depth=2", "--seed=5"), {"depth": 2, "seed": 5}),
    "exclude": (("--exclude=some.txt",), {"exclude": [3, 9, 20]}),
    "only": (("--only=some.txt",), {"only": [3, 9, 20]}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_those_of_python(
    name: str, places: Path, made: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("some.txt").write_text("9\n3\n\n 20 \r\n9\n")
    Path("users.txt").write_text("7\n3\n7\n")
    typed, options = OPTIONS[name]
    found = written(tmp_path / "l.csv", places / "saved", "--users=users.txt", "--k=6", *typed)
    assert rounded(found) == rows(made.recommend([7, 3, 7], k=6, **options))


def test_histories_of_a_file(places: Path, made: Recommender, tmp_path: Path, capsys) -> None:
    file = tmp_path / "h.txt"
    file.write_text("3,4\n\n99\n7\n")
    found = written(
        tmp_path / "new" / "folders" / "l.csv",
        places / "run",
        f"--histories={file}",
        "--unknown=skip",
        "--emptied=popular",
        "--k=3",
    )
    assert [row["user"] for row in found] == [str(n) for n in range(4) for _ in range(3)]
    expected = rows(made.recommend(histories={0: [3, 4], 3: [7]}, k=3))
    assert rounded(found[:3] + found[9:]) == expected
    assert [row["score"] for row in found[3:9]] == [""] * 6
    assert found[3]["item"] == found[6]["item"]
    told = capsys.readouterr().err
    assert f"note: 1 empty history: {file}, line 2" in told
    assert f"note: left out 1 unknown item: '99' ({file}, line 3)" in told
    assert f"{file}, line 2: '' is not a history" in fails(
        capsys, places / "run", f"--histories={file}", "--output", tmp_path / "l.csv"
    )


def test_titles_are_a_column(places: Path, tmp_path: Path, capsys) -> None:
    items = tmp_path / "items.csv"
    items.write_text("movieId,title\n" + "".join(f'{n},"Film, {n}"\n' for n in range(1, 25)))
    found = written(tmp_path / "l.csv", places / "run", "--users=all", f"--items={items}", "--k=25")
    assert found
    for row in found:
        assert row["title"] == ("" if row["item"] == "25" else f"Film, {row['item']}")
    assert "has no title of 1 of 25 items" in capsys.readouterr().err


def test_other_data_may_have_short_histories_and_other_items(
    places: Path, made: Recommender, tmp_path: Path, capsys
) -> None:
    data = tmp_path / "new.csv"
    data.write_text("who,item_id\nann,3\nbo,77\nann,4\ncy,77\ncy,9\n")
    argv = (places / "run", data, "--users=all", "--data.user_column=who", "--k=3")
    error = fails(capsys, *argv, "--output", tmp_path / "l.csv")
    assert "new has 1 items that the model does not know: 77; --unknown skip" in error
    found = written(tmp_path / "l.csv", *argv, "--unknown=skip")
    expected = made.recommend(histories={"ann": [3, 4], "cy": [9]}, k=3)
    assert rounded(found) == rows(expected)
    told = capsys.readouterr().err
    assert "they are left out of histories" in told
    assert "is other data than" in told


def test_users_that_are_not_there(places: Path, made: Recommender, tmp_path: Path, capsys) -> None:
    file = tmp_path / "users.txt"
    file.write_text("7\nx\n900\n")
    argv = (places / "saved", f"--users={file}", "--k=3")
    error = fails(capsys, *argv, "--output", tmp_path / "l.csv")
    assert f"{file}, line 2: user 'x' is unknown: the data have 60 users, such as 1" in error
    assert "2 unknown users" in error
    assert rounded(written(tmp_path / "l.csv", *argv, "--unknown=skip")) == rows(
        made.recommend([7], k=3)
    )
    file.write_text("\n")
    assert "holds no id" in fails(capsys, *argv, "--output", tmp_path / "l.csv")


def test_data_that_are_gone_and_users_that_nobody_knows(
    places: Path, tmp_path: Path, capsys
) -> None:
    run, output = tmp_path / "run", tmp_path / "l.csv"
    shutil.copytree(places / "run", run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("walks.parquet", "gone.parquet"))
    error = fails(capsys, run, "--users=all", "--output", output)
    assert "gone.parquet, which is not there" in error
    assert "give DATA, the place where it is now" in error
    assert written(output, run, places / "walks.parquet", "--users=all", "--k=1")
    LaresModel.from_pretrained(run).save_pretrained(tmp_path / "model")
    error = fails(capsys, tmp_path / "model", "--users=all", "--output", output)
    assert "knows no users; give DATA" in error
    assert written(output, tmp_path / "model", places / "walks.parquet", "--users=all", "--k=1")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--users=all", "--users is for lists in a file; give --output FILE, too"),
        ("--history=3 --exclude=x", "--exclude is for lists in a file"),
        ("--history=3 --output=l.csv", "--history is printed"),
        ("--history=3 --users=all --output=l.csv", "one of them"),
        ("--output=l.csv", "give --history"),
        ("--users=all --output=l.txt", "--output is 'l.txt'; it must end in one of .parquet, .csv"),
        ("--users=all --output=nowhere.d/x/l.csv --k=26", "--k is 26; it must be"),
        ("--users=none.txt --output=l.csv", "there is no file or folder none.txt"),
        ("--users=all --output=l.csv --only=none.txt", "there is no file or folder none.txt"),
        ("--users=all --output=l.csv --item_columns=a,b", "is for --items FILE"),
        ("--users=all --output=l.csv --items=x --item_columns=a", "it must be two names"),
        ("DATA --history=3", "DATA (DATA) is for --users"),
        ("--history=3 --data.core=5", "--data.core is for --users"),
        ("--users= --output=l.csv", "--users is ''"),
    ],
)
def test_what_does_not_go_together(
    argv: str, message: str, places: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, places / "run", *argv.split())
    assert not list(tmp_path.rglob("*.csv*"))


def test_a_command_that_was_killed_goes_on(places: Path, tmp_path: Path) -> None:
    """Of 20,000 users, five parts, after the first ones."""
    data, output = tmp_path / "many.csv", tmp_path / "lists.parquet"
    whole = histories(pq.read_table(places / "walks.parquet"))
    lines = [f"{user * 60 + n},{item}\n" for user in range(340) for n in whole for item in whole[n]]
    data.write_text("user_id,item_id\n" + "".join(lines))
    argv = [str(places / "saved"), str(data), "--users=all", "--k=3", "--num_threads=1"]
    command = [sys.executable, "-m", "lares", "recommend", *argv, f"--output={output}"]
    parts = tmp_path / "lists.parquet.parts"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(parts.glob("0*.parquet")) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert not output.exists(), "it was too fast to be killed"
    main(["recommend", *argv, f"--output={output}"])
    main(["recommend", *argv, f"--output={tmp_path / 'again.parquet'}"])
    assert output.read_bytes() == (tmp_path / "again.parquet").read_bytes()
    assert pq.read_metadata(output).num_rows == 340 * 60 * 3
    assert not parts.exists()
