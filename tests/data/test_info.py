"""What ``lares data info`` says of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lares.cli import main
from tests.data.tables import four_of, write_text


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    main(["data", "info", *argv])
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_how_a_file_was_understood(tmp_path: Path, capsys) -> None:
    path = str(write_text(tmp_path / "x.csv", four_of([7, 10, 11, 12]), ";"))
    lines = said(capsys, path)
    for line in (
        "format CSV, delimiter ';'",
        "user ids text",
        "item ids whole numbers",
        "times column 'timestamp', whole numbers",
        "interactions 8",
    ):
        assert line in lines
    assert "item ids text" in said(capsys, path, "--text_ids=true")


def test_notes_come_first(tmp_path: Path, capsys) -> None:
    rows = [("u", item, f"2026-03-0{9 - place}", "") for place, item in enumerate("abcde")]
    header = ("user_id", "item_id", "day", "note")
    path = str(
        write_text(tmp_path / "x.train.csv", [*rows, ("", "f", "2026-03-01", "")], header=header)
    )
    write_text(tmp_path / "x.valid.csv", [])
    lines = said(capsys, path, "--data.drop_missing", "true")
    assert lines[0].startswith("note: rows are taken in the order of the file")
    assert "columns that look like times: 'day'" in lines[0]
    assert lines[1].startswith("note: x.train.csv alone is read, not x.valid.csv beside it")
    assert lines[2] == "note: left out: 1 of 6 rows lack a value (1 in 'user_id')"
    assert lines[3] == "name x.train"
    assert "times order of the rows" in lines
    lines = said(capsys, path, "--drop_missing=true", "--time_column", "")
    assert lines[0].startswith("note: x.train.csv alone")
    lines = said(capsys, path, "--drop_missing=true", "--data.time_column=day")
    assert "times column 'day', dates" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delimiter="], "data.delimiter is empty"),
        (["--drop_missing=maybe"], "drop_missing"),
        (["--time_column=when"], "has no column 'when'"),
        ([], "line 4: column 'item_id' is empty. 1 of 4 rows lack a value (1 in 'item_id')"),
    ],
)
def test_mistakes(tmp_path: Path, capsys, options: list[str], message: str) -> None:
    rows = [(1, 2), (1, 3), (1, ""), (1, 4)]
    path = write_text(tmp_path / "x.csv", rows, header=("user_id", "item_id"))
    with pytest.raises(SystemExit):
        main(["data", "info", str(path), *options])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_data_are_like(tmp_path: Path, capsys) -> None:
    rows = [
        (user, item, 978_300_000 + 86_400 * at)
        for user in (1, 2)
        for at, item in enumerate([5, 5, 6, 5, 7])
    ]
    rows += [(3, 8, 978_300_000 + at) for at in range(2)] + [(4, 6, 978_300_000)]
    lines = said(capsys, str(write_text(tmp_path / "x.csv", rows)))
    for line in (
        "history length mean 4.0, median 5, longest 5",
        "length quantiles 10% up to 3, 25% up to 4, 50% up to 5, 75% up to 5, 90% up to 5, 99% up to 5",
        "popularity 1% of the items have 50.0% of the interactions, 10% have 50.0%; Gini 0.25",
        "rare items 3 (75.0%) with fewer than 5 interactions",
        "repeats 41.7% of the interactions are with an item that the user had before, 25.0% with the "
        "one just before",
        "unseen targets 100.0% of the test targets are items that training never meets",
        "format CSV, delimiter ','",
        "known by suffix .csv",
        "columns users 'user_id', items 'item_id'",
        "from, to 2000-12-31 to 2001-01-04",
    ):
        assert line in lines
    assert lines.index("known by suffix .csv") == lines.index("format CSV, delimiter ','") + 1


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture(tmp_path: Path, capsys, ending: str) -> None:
    path = str(write_text(tmp_path / "$x_1$.csv", four_of("abcdab")))
    picture = tmp_path / f"made.{ending}"
    assert f"picture {picture}" in said(capsys, path, "--plot", str(picture))
    start = picture.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<?xml" in start
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ("x.jpeg", "--plot is 'x.jpeg'; it must end in .png, .svg or .pdf"),
        ("", "--plot is ''; give the name of a file"),
        ("/dev/null/y.png", "--plot /dev/null/y.png cannot be written"),
    ],
)
def test_pictures_that_cannot_be(tmp_path: Path, capsys, plot: str, message: str) -> None:
    """Are told before data are read."""
    with pytest.raises(SystemExit):
        main(["data", "info", str(tmp_path / "nothing.csv"), "--plot", plot])
    assert message in capsys.readouterr().err
