"""Public sets by name on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lares.cli import main
from lares.data import load_dataset

TINY = ["--model.d_model=16", "--model.d_ff=16", "--model.max_length=8", "--trainer.max_epochs=1"]
TINY += ["--trainer.num_threads=1", "--trainer.test_depths=[1]", "--trainer.tensorboard=false"]


@pytest.fixture
def films(interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has a set called ml-1m, and a folder to work in."""
    import pyarrow.parquet as pq

    table = pq.read_table(interactions)
    path = tmp_path / "cache" / "ml-1m" / "ratings.dat"
    path.parent.mkdir(parents=True)
    rows = zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    path.write_text("".join(f"{user}::{item}::4::{at}\n" for at, (user, item) in enumerate(rows)))
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return path


def test_a_set_is_trained_on_by_its_name(films: Path, capsys) -> None:
    main(["train", "ml-1m", "--no_progress", *TINY])
    run = Path("runs/ml-1m-lares")
    assert (run / "result.json").is_file()
    assert "path: ml-1m" in (run / "config.yaml").read_text()
    capsys.readouterr()
    main(["evaluate", str(run), "--depths=1"])
    assert "test: " in capsys.readouterr().out
    main(["train", "ml-1m", "--resume", "--no_progress", "--trainer.max_epochs=2"])
    main(["data", "info", "ml-1m"])
    assert f"{load_dataset(films).n_interactions:,}" in capsys.readouterr().out


def test_data_get(films: Path, capsys) -> None:
    """Gives the file on standard output, for other programs, and the terms beside it."""
    main(["data", "get", "ml-1m"])
    told = capsys.readouterr()
    assert told.out == f"{films}\n"
    assert "no redistribution, without permission" in told.err


@pytest.mark.usefixtures("films")
@pytest.mark.parametrize("command", ["train", "data info"])
def test_names_that_are_not_known(command: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "ml-2m"])
    error = capsys.readouterr().err
    assert "there is no file or folder ml-2m, and no public data set; those are ml-100k, " in error
    assert error.count("\n") == 1
