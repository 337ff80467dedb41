"""``lares plot``: pictures of runs, of what they have stored and of what they lack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from lares.cli import main
from lares.training import tested
from lares.training.breakdown import Breakdown
from tests.cli.failing import fails

SAVED = Path(__file__).parent.parent / "saved"
PNG = b"\x89PNG"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: old runs, with their data where they look for them."""
    shutil.copytree(SAVED / "data", tmp_path / "data")
    shutil.copytree(SAVED / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plot(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[Path, str]:
    """The picture that is made, and what is noted."""
    main(["plot", *argv, *(() if "--stored" in argv else ("--device=cpu",))])
    printed = capsys.readouterr()
    return Path(printed.out.removesuffix("\n")), printed.err


def test_what_a_run_lacks_is_computed_once(
    place: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, notes = plot(capsys, "runs/train_users")
    assert picture == Path("runs/train_users/plot.png")
    assert picture.read_bytes().startswith(PNG)
    assert notes == "note: runs/train_users: testing its best model on data/films.csv\n"
    stored = Breakdown.load(place / "runs/train_users/breakdown.json")
    assert stored is not None
    assert [row["depth"] for row in stored.by_depth] == [1, 2, 3]
    assert sum(row["samples"] for row in stored.by_popularity) == 50

    monkeypatch.setattr(tested, "RunTest", None)
    again, notes = plot(capsys, "runs/train_users", "--output=again.png")
    assert notes == ""
    assert again.read_bytes() == picture.read_bytes()


def test_a_better_model_is_tested_anew(place: Path, capsys) -> None:
    plot(capsys, "runs/train_users")
    before = Breakdown.load(place / "runs/train_users/breakdown.json")
    other = "runs/posttrain_users_cross_entropy/best/model.safetensors"
    shutil.copy(other, "runs/train_users/best/model.safetensors")
    _, notes = plot(capsys, "runs/train_users")
    assert "testing its best model" in notes
    assert Breakdown.load(place / "runs/train_users/breakdown.json") != before


def test_runs_side_by_side(place: Path, capsys) -> None:
    """Of different kinds and data; in the folder that holds them all, with other files."""
    runs = [str(path) for path in sorted((place / "runs").iterdir())]
    picture, notes = plot(capsys, *runs)
    assert picture == Path("runs/plot.png")
    assert notes.count("testing its best model") == 6
    assert notes.count("is no run folder") == len(runs) - 6
    again, notes = plot(capsys, *runs, str(picture))  # as runs/* names it the next time
    assert again == picture
    assert "testing" not in notes
    assert "note: left out: runs/plot.png is no run folder" in notes


@pytest.mark.parametrize("metric", ["ndcg@10", "recall@10"])
def test_what_a_picture_says(
    metric: str, place: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # letters, not outlines
    picture, _ = plot(capsys, "runs/train_users", f"--metric={metric}", "--output=made.svg")
    text = picture.read_text()
    label = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10"}[metric]
    for said in (
        "films: train_users",
        "Test, by reasoning depth",
        "Test, by popularity of the target",
        "Test, by history length",
        "recipe shared, 15 options set otherwise",
        "best epoch 3 of 3, 0 s",
        f">{label}<",
        "trajectory alignment",
        "3-4",
    ):
        assert said in text, said
    again, _ = plot(capsys, "runs/train_users", f"--metric={metric}", "--output=again.svg")
    assert again.read_bytes() == picture.read_bytes()


def test_without_data(place: Path, capsys) -> None:
    """What is stored is drawn, and what is missing is said."""
    (place / "data" / "films.csv").rename(place / "moved.csv")
    picture, notes = plot(capsys, "runs/train_users")
    assert picture.read_bytes().startswith(PNG)
    assert notes == (
        "note: runs/train_users: no accuracy by popularity and history length: its data "
        "data/films.csv are not there; --data says where they are now\n"
    )
    _, notes = plot(capsys, "runs/train_users", "--stored")
    assert "it has none stored" in notes
    other = fails(capsys, "plot", "runs/train_users", "--data=data/walks.parquet")
    assert "walks: item 1 and 24 others are unknown to this catalogue" in other
    _, notes = plot(capsys, "runs/train_users", "--data=moved.csv")
    assert notes == "note: runs/train_users: testing its best model on moved.csv\n"


def test_a_run_that_never_validated(place: Path, capsys) -> None:
    shutil.rmtree("runs/train_prefixes/best")
    Path("runs/train_prefixes/metrics.csv").unlink()
    picture, notes = plot(capsys, "runs/train_prefixes")
    assert "it has no best model yet" in notes
    assert picture.is_file()


def test_what_is_no_run(place: Path, capsys) -> None:
    assert "nope is no run folder" in fails(capsys, "plot", "runs/train_users", "nope")
    assert "data is no run folder" in fails(capsys, "plot", "data")
    Path("runs/train_users/metrics.csv").write_text("epoch\nx\n")
    assert "runs/train_users is damaged: " in fails(capsys, "plot", "runs/train_users")
    _, notes = plot(capsys, "runs/train_users", "runs/train_prefixes", "--stored")
    assert notes.startswith("note: left out: runs/train_users is damaged: ")
    many = [str(shutil.copytree("runs/train_prefixes", f"many/{n}")) for n in range(22)]
    assert "there are 22 runs; a picture has room for 21" in fails(capsys, "plot", *many)


def test_a_folder_that_may_not_be_written_to(place: Path, capsys) -> None:
    """The picture goes where it is to go, and what was computed is not kept."""
    (place / "runs/train_users/breakdown.json").mkdir()
    picture, notes = plot(capsys, "runs/train_users", "--output=elsewhere.png")
    assert picture.is_file()
    assert "the next picture computes it again" in notes


def test_what_is_stored_needs_no_torch(place: Path, capsys) -> None:
    plot(capsys, "runs/train_users")
    program = (
        "import sys; from lares.cli import main; main(['plot', 'runs/train_users']); "
        "assert 'torch' not in sys.modules"
    )
    root = str(Path(__file__).parent.parent.parent)
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": root}, check=False)
    assert done.returncode == 0
