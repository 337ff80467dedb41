"""``lares runs``: a folder's runs as a table, sorted, and in a file."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from lares.cli import main
from tests.cli.failing import fails

SAVED = Path(__file__).parent.parent / "saved" / "runs"


def names(printed: str) -> list[str]:
    """The first column, below the line."""
    lines = printed.splitlines()
    below = next(number for number, line in enumerate(lines) if set(line) == {"-"}) + 1
    return [line.split()[0] for line in lines[below:] if not line.startswith("damaged")]


def test_old_runs_are_listed(capsys) -> None:
    main(["runs", str(SAVED)])
    printed = capsys.readouterr().out
    assert names(printed) == sorted(path.name for path in SAVED.iterdir() if path.is_dir())
    rows = {line.split()[0]: " ".join(line.split()) for line in printed.splitlines()}
    finished = rows["train_users"]
    assert finished.startswith("train_users train films shared, adapter=gate, ")
    assert " 3 0.3970 0.3680 0.7600 1 " in finished
    assert finished.endswith(" finished")
    stopped = rows["posttrain_prefixes"]
    assert stopped.startswith("posttrain_prefixes posttrain walks of train_prefixes, ")
    assert " 1/3 " in stopped
    assert stopped.endswith(" stopped")


@pytest.mark.parametrize(
    ("column", "first"),
    [
        ("valid", "posttrain_prefixes"),
        ("ndcg", "posttrain_users_cross_entropy"),
        ("data", "posttrain_users"),
    ],
)
def test_sorting(column: str, first: str, capsys) -> None:
    """The best first, and last what is not known."""
    main(["runs", str(SAVED), f"--sort={column}"])
    assert names(capsys.readouterr().out)[0] == first


@pytest.mark.parametrize(
    "column", ["kind", "recipe", "epochs", "recall", "seconds", "date", "state"]
)
def test_every_column_sorts(column: str, tmp_path: Path, capsys) -> None:
    shutil.copytree(SAVED / "train_users", tmp_path / "whole")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("{")
    main(["runs", str(tmp_path), f"--sort={column}"])
    assert sorted(names(capsys.readouterr().out)) == ["broken", "whole"]


def test_files(tmp_path: Path, capsys) -> None:
    for form in ("json", "csv"):
        main(["runs", str(SAVED), f"--output={tmp_path / 'made'}.{form}", "--sort=ndcg"])
    stored = json.loads((tmp_path / "made.json").read_text())
    with open(tmp_path / "made.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(stored) == len(rows) == 6
    result = json.loads((SAVED / "train_users" / "result.json").read_text())
    for found, row in zip(stored, rows, strict=True):
        assert list(found) == list(row)
        assert found["name"] == row["name"]
    place = [found["name"] for found in stored].index("train_users")
    found, row = stored[place], rows[place]
    assert found["test_ndcg@10"] == float(row["test_ndcg@10"]) == result["test"]["1"]["ndcg@10"]
    assert found["differs"]["model.adapter"] == "gate"
    assert "model.adapter=gate; " in row["differs"]
    assert (found["data"], found["recipe"], found["state"]) == (
        "data/films.csv",
        "shared",
        "finished",
    )


def test_damage_is_named_below(tmp_path: Path, capsys) -> None:
    shutil.copytree(SAVED / "train_users", tmp_path / "good")
    shutil.copytree(SAVED / "train_users", tmp_path / "bad\tname")
    (tmp_path / "bad\tname" / "metrics.csv").write_text("epoch\nx\n")
    main(["runs", str(tmp_path)])
    printed = capsys.readouterr().out
    assert names(printed) == ["bad\\tname", "good"]
    last = printed.splitlines()[-1]
    assert last.startswith(f"damaged: {tmp_path}/bad\\tname: ")
    assert "metrics.csv is damaged (row 1 has 'x' for its epoch)" in last


def test_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no folder runs" in fails(capsys, "runs")
    (tmp_path / "runs").mkdir()
    main(["runs"])
    assert capsys.readouterr().out == "no runs in runs\n"
    shutil.copytree(SAVED / "train_users", tmp_path / "runs" / "demo" / "lares")
    main(["runs"])
    assert names(capsys.readouterr().out) == ["demo/lares"]
