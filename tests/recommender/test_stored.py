"""Saved recommenders, and folders that others made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares import LaresConfig, LaresModel, Recommender
from lares.cli import main
from lares.errors import CheckpointError, ConfigError, DataError
from tests.recommender.helpers import lists, rows, small


@pytest.fixture
def folder(fitted: Recommender, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_what_was_saved_gives_the_same(fitted: Recommender, folder: Path, table: pa.Table) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.safetensors", "items.json", "users.parquet", "recommender.json"),
    }
    loaded = Recommender.load(folder)
    assert repr(loaded) == repr(fitted) == "Recommender(60 users, 25 items)"
    assert loaded.config is not None
    assert fitted.config is not None
    assert loaded.config.to_dict() == fitted.config.to_dict()
    assert loaded.result is None
    assert loaded.recommend().equals(fitted.recommend())
    assert loaded.similar_items([1]).equals(fitted.similar_items([1]))
    assert loaded.evaluate() == loaded.evaluate(table) == fitted.evaluate()
    loaded.save(folder.parent / "again")
    for path in folder.iterdir():
        assert (folder.parent / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_text_ids_and_tables_of_pandas(tmp_path: Path, table: pa.Table) -> None:
    pandas = pytest.importorskip("pandas")
    frame = table.to_pandas()
    frame["user_id"] = "user " + frame["user_id"].astype(str)
    frame["item_id"] = "item " + frame["item_id"].astype(str)
    rec = small(**{"trainer.max_epochs": 1}).fit(frame, progress=False)
    rec.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    pandas.testing.assert_frame_equal(loaded.recommend(), rec.recommend())
    loaded.tables = "arrow"
    assert isinstance(loaded.recommend(["user 7"]), pa.Table)
    loaded.tables = "excel"
    with pytest.raises(ConfigError, match="tables is 'excel'; it must be one of pandas, polars"):
        loaded.recommend()


def test_tables_of_a_library_that_is_not_there(
    fitted: Recommender, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Recommender.load(folder)
    loaded.tables = "polars"
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(ConfigError, match="pip install polars, or set .* tables to 'arrow'"):
        loaded.recommend()


def test_the_command_line_takes_it_as_a_model(
    fitted: Recommender, folder: Path, interactions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["recommend", str(folder), "--history", "1,2,3", "--k", "4"])
    found = [int(item) for item in capsys.readouterr().out.strip().split(",")]
    assert found == lists(fitted.recommend(histories=[[1, 2, 3]], k=4))[0]
    main(["evaluate", str(folder), str(interactions), "--depths", "4"])
    assert f"{fitted.evaluate()[4]['ndcg@10']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["users.parquet", "recommender.json"])
def test_without_users_histories_are_served(lost: str, fitted: Recommender, folder: Path) -> None:
    (folder / lost).unlink()
    loaded = Recommender.load(folder)
    assert repr(loaded) == "Recommender(no users, 25 items)"
    assert loaded.recommend(histories=[[1, 2]]).equals(fitted.recommend(histories=[[1, 2]]))
    for fails in (loaded.recommend, loaded.evaluate):
        with pytest.raises(DataError, match=r"no user is known here: .* give histories"):
            fails()
    loaded.save(folder.parent / "again")
    assert not (folder.parent / "again" / "users.parquet").exists()


def test_a_run_and_a_model_without_ids(
    table: pa.Table, fitted: Recommender, tmp_path: Path
) -> None:
    small().fit(table, folder=tmp_path / "run", progress=False)
    of_run = Recommender.load(tmp_path / "run")
    assert of_run.evaluate(table) == fitted.evaluate()
    assert rows(of_run.recommend(histories=[[1]])) == rows(fitted.recommend(histories=[[1]]))
    LaresModel(LaresConfig(n_items=9, d_model=8, d_ff=8, n_heads=2)).save_pretrained(tmp_path)
    plain = Recommender.load(tmp_path)
    assert sorted(lists(plain.recommend(histories=[[3]], k=8))[0]) == [1, 2, 4, 5, 6, 7, 8]
    with pytest.raises(ConfigError, match="loaded without options to train with"):
        plain.fit(table)


def test_a_run_of_data_in_memory_is_evaluated_on_data_that_are_given(
    table: pa.Table, interactions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small().fit(table, folder=tmp_path / "run", progress=False)
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "run")])
    assert "was trained on data in memory; give DATA" in capsys.readouterr().err
    main(["evaluate", str(tmp_path / "run"), str(interactions)])
    assert "is other data" not in capsys.readouterr().err


def test_damage_is_named(fitted: Recommender, folder: Path, tmp_path: Path) -> None:
    def broken(name: str, content: bytes, message: str) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / "broken", dirs_exist_ok=True))
        (copy / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            Recommender.load(copy)

    broken("recommender.json", b"{", "recommender.json is not readable JSON")
    broken("recommender.json", b"{}", "recommender.json is not readable: 'options'")
    settings = json.loads((folder / "recommender.json").read_text())
    settings["options"]["trainer"]["max_epochs"] = 0
    broken("recommender.json", json.dumps(settings).encode(), "trainer.max_epochs is 0")
    broken("users.parquet", b"nothing", "users.parquet holds no users and histories")
    users = pq.read_table(folder / "users.parquet")
    pq.write_table(users.replace_schema_metadata({"lares_items": "others"}), tmp_path / "u")
    message = "users.parquet was saved with other items"
    broken("users.parquet", (tmp_path / "u").read_bytes(), message)
    rows_of_others = pa.array([[99]] * len(users), pa.large_list(pa.int32()))
    pq.write_table(users.set_column(1, "rows", rows_of_others), tmp_path / "u")
    broken("users.parquet", (tmp_path / "u").read_bytes(), "rows that are no items")


def test_a_place_that_cannot_be_written_to(fitted: Recommender, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        fitted.save(tmp_path / "file" / "x")
    with pytest.raises(ConfigError, match="no model: call fit, or Recommender.load"):
        Recommender().save(tmp_path)
