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
