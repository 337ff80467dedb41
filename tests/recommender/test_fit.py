"""Fitting: interactions of every kind, options, and runs that were cut off."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from lares import Recommender
from lares.errors import ConfigError, DataError
from lares.training.interrupts import Interrupted
from lares.training.trainer import Trainer
from tests.recommender.helpers import OPTIONS, lists, rows, small

KINDS: dict[str, Callable[[pa.Table], Any]] = {
    "arrow": lambda table: table,
    "batch": lambda table: table.combine_chunks().to_batches()[0],
    "lists": lambda table: table.to_pydict(),
    "arrays": lambda table: {name: table[name].to_numpy() for name in table.column_names},
    "tensors": lambda table: {name: torch.tensor(table[name].to_numpy()) for name in ROWS},
    "pandas": lambda table: pytest.importorskip("pandas") and table.to_pandas(),
    "pandas objects": lambda table: (
        pytest.importorskip("pandas") and table.to_pandas().astype(object)
    ),
    "polars": lambda table: pytest.importorskip("polars").from_arrow(table),
}
ROWS = ("user_id", "item_id")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same_lists_in_a_table_of_its_own(
    kind: str, table: pa.Table, fitted: Recommender
) -> None:
    given = KINDS[kind](table)
    found = small().fit(given, progress=False).recommend(k=3)
    assert rows(found) == rows(fitted.recommend(k=3))
    library = kind.split()[0]
    assert type(found).__module__.split(".")[0] == {"pandas": "pandas", "polars": "polars"}.get(
        library, "pyarrow"
    )
    assert list(rows(found)[0]) == ["user", "item", "score", "rank"]


@pytest.mark.parametrize("named", [str, Path])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files(
    named: type, form: str, table: pa.Table, fitted: Recommender, tmp_path: Path
) -> None:
    path = tmp_path / f"walks.{form}"
    if form == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    found = small().fit(named(path), progress=False).recommend(k=3)
    assert isinstance(found, pa.Table)
    assert found.equals(fitted.recommend(k=3))


def test_names_of_columns_times_and_text(table: pa.Table, fitted: Recommender) -> None:
    """Rows in any order are sorted by time; ids may be text."""
    shuffled = np.random.default_rng(0).permutation(len(table))
    other = pa.table(
        {
            "when": pa.array(np.arange(len(table))),
            "who": pa.array([f"u{user:03}" for user in table["user_id"].to_pylist()]),
            "what": pa.array([f"i{item:03}" for item in table["item_id"].to_pylist()]),
        }
    ).take(shuffled)
    rec = small().fit(other, "who", "what", "when", progress=False)
    expected = {
        f"u{user:03}": [f"i{item:03}" for item in items]
        for user, items in lists(fitted.recommend()).items()
    }
    assert lists(rec.recommend()) == expected
    assert lists(rec.recommend(["u007"])) == {"u007": expected["u007"]}


WRONG: dict[str, tuple[Callable[[dict[str, list[Any]]], Any], str]] = {
    "no data": (lambda data: 3, "the data are 3; they must be a DataFrame of pandas or polars"),
    "rows": (lambda data: [data], "the data are .*; they must be a DataFrame"),
    "no column": (lambda data: {"user_id": [1]}, "the dict has no column 'item_id'; its columns"),
    "two kinds": (
        lambda data: data | {"item_id": [*data["item_id"][:-1], "nine"]},
        "the dict, row 455 .counted from 0.: column 'item_id' holds 'nine', text, and something",
    ),
    "no id": (
        lambda data: data | {"item_id": [*data["item_id"][:-1], None]},
        "the dict, row 455 .counted from 0.: column 'item_id' is empty",
    ),
    "no whole number": (
        lambda data: data | {"user_id": np.append(data["user_id"][:-1], 1.5)},
        "the dict, row 455 .counted from 0.: column 'user_id' holds 1.5",
    ),
    "two lengths": (
        lambda data: data | {"user_id": [1, 2]},
        "they have rows: 'user_id' 2, 'item_id' 456",
    ),
    "a matrix": (
        lambda data: data | {"user_id": np.ones((456, 2))},
        "the dict: column 'user_id' is array.* must be a list or an array",
    ),
    "no rows": (lambda data: {name: [] for name in data}, "the dict holds no interaction"),
    "short": (
        lambda data: {"user_id": [1, 1, 1], "item_id": [1, 2, 3]},
        "the dict: the longest of 1 histories has 3 items",
    ),
    "a path": (lambda data: "nowhere.csv", "there is no file or folder nowhere.csv"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_data_is_named(wrong: str, table: pa.Table) -> None:
    make, message = WRONG[wrong]
    with pytest.raises(DataError, match=message):
        small().fit(make(table.to_pydict()), progress=False)


def test_what_is_wrong_with_a_data_frame_is_named(table: pa.Table) -> None:
    pandas = pytest.importorskip("pandas")
    frame = table.to_pandas()
    with pytest.raises(DataError, match="the DataFrame has two columns called 'item_id'"):
        small().fit(pandas.concat([frame, frame[["item_id"]]], axis=1))
    mixed = frame.astype(object)
    mixed.iloc[7, 1] = "x"
    with pytest.raises(DataError, match=r"the DataFrame, row 7 .*'item_id' holds 'x', text"):
        small().fit(mixed)
    lazy = pytest.importorskip("polars").from_arrow(table).lazy()
    with pytest.raises(DataError, match=r"LazyFrame has no rows yet; give its collect\(\)"):
        small().fit(lazy)


def test_options_are_those_of_the_command_line() -> None:
    assert Recommender().config == Recommender("quick").config
    rec = Recommender(
        "demo", trainer={"max_epochs": 7}, **{"model.d_model": 32, "data.core": 2}
    ).config
    assert rec is not None
    assert (rec.trainer.max_epochs, rec.trainer.patience, rec.data.core) == (7, 10, 2)
    assert (rec.model["d_model"], rec.model["max_length"]) == (32, 50)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"recipe": "quik"}, "recipe is 'quik'; it must be one of demo, "),
    ({"max_epochs": 3}, "unknown section 'max_epochs'; there are data, model"),
    ({"trainer": {"max_epoch": 3}}, "trainer 'max_epoch'; did you mean 'max_epochs'"),
    ({"trainer.max_epoch": 3}, "trainer 'max_epoch'; did you mean 'max_epochs'"),
    ({"trainer": 3}, "section 'trainer' is 3; it must hold options"),
    ({"trainer.max_epochs": 0}, "trainer.max_epochs is 0"),
    ({"model": {"n_items": 3}}, "model.n_items is what the data say"),
    ({"trainer": {"seed": 1}, "trainer.seed": 2}, "trainer.seed is given twice"),
    ({"data": {"user_column": "u"}}, "data.user_column is an argument of fit"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda value: str(value)[:30])
def test_mistakes_in_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recommender(**options)


def test_several_processes_are_refused(table: pa.Table) -> None:
    with pytest.raises(ConfigError, match="trainer.devices is 2; fit trains in one process"):
        small(**{"trainer.devices": 2}).fit(table)


def test_data_that_are_split_already_name_no_users(tmp_path: Path) -> None:
    """RecBole's sequence form has histories and targets alone."""
    header = "item_id_list:token_seq\titem_id:token\n"
    samples = [" ".join(map(str, range(user, user + 5))) for user in range(1, 20)]
    for split, more in (("train", 3), ("valid", 4), ("test", 5)):
        lines = [
            f"{' '.join(items.split()[: more - 1])}\t{items.split()[more - 1]}" for items in samples
        ]
        (tmp_path / f"x.{split}.inter").write_text(header + "\n".join(lines) + "\n")
    rec = small(**{"sampling.samples": "prefixes"})
    rec.fit(tmp_path / "x.train.inter", progress=False)
    assert rec.result is not None
    assert rec.evaluate() == rec.result.test
    assert len(lists(rec.recommend(histories=[[1, 2, 3]], k=5))[0]) == 5
    with pytest.raises(DataError, match=r"no user is known here: .* RecBole's sequence form"):
        rec.recommend()


def test_torchs_generator_is_left_as_it_was(table: pa.Table) -> None:
    before = torch.random.get_rng_state()
    small().fit(table, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_folder_is_removed_unless_it_is_given(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small().fit(table, progress=False)
    with pytest.raises(DataError):
        small().fit({"user_id": [1], "item_id": [1]}, progress=False)
    assert not list(tmp_path.iterdir())
    small().fit(table, folder=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize("how", ["asked to stop", "killed"])
def test_a_fit_that_is_cut_off_goes_on_to_the_same_numbers(
    how: str,
    table: pa.Table,
    fitted: Recommender,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, starts = Trainer._step, 0

    class Killed(BaseException):
        pass

    def cut(self, indices):
        if how == "killed" and self.progress.step and starts < 4:
            raise Killed  # nothing of this step is saved
        found = step(self, indices)
        if how == "asked to stop":
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(Trainer, "_step", cut)
    folder = tmp_path / "run"
    while True:
        starts += 1
        options = {"trainer.checkpoint_every_steps": 1} if how == "killed" else {}
        rec = small(**options)
        try:
            rec.fit(table, folder=folder, progress=False)
            break
        except Interrupted as error:
            assert f"saved in {folder}: call fit again" in str(error)
        except Killed:
            pass
    assert starts > 3
    assert rec.recommend().equals(fitted.recommend())
    assert rec.result is not None
    assert fitted.result is not None
    assert rec.result.test == fitted.result.test


def test_a_fit_without_a_folder_says_how_it_could_go_on(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def stops(self, indices):
        found = step(self, indices)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(Trainer, "_step", stops)
    rec = small()
    with pytest.raises(Interrupted, match="fit was stopped; give fit a folder"):
        rec.fit(table, progress=False)
    with pytest.raises(ConfigError, match="no model: call fit"):
        rec.recommend()


def test_a_run_that_is_finished_is_taken(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small().fit(table, folder=tmp_path, progress=False)
    monkeypatch.setattr(Trainer, "_step", None)
    again = small().fit(table, folder=tmp_path, progress=False)
    assert again.recommend().equals(first.recommend())


def test_a_run_of_other_data_or_options_is_refused(table: pa.Table, tmp_path: Path) -> None:
    small().fit(table, folder=tmp_path, progress=False)
    with pytest.raises(ConfigError, match=r"other options \(trainer.seed\).* give another folder"):
        small(**{"trainer.seed": 1}).fit(table, folder=tmp_path, progress=False)
    fewer = table.slice(0, 400)
    with pytest.raises(DataError, match="the Arrow table is not the data .* another folder"):
        small().fit(fewer, folder=tmp_path, progress=False)


def test_a_fit_shows_lines_and_options_stay_as_they_were(
    table: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    rec = small()
    before = rec.config
    rec.fit(table, time_column="")
    shown = capsys.readouterr().out
    assert "the Arrow table: 456 interactions of 60 users with 25 items" in shown
    assert "epoch   2  loss" in shown
    assert before is not None
    assert rec.config is not None
    assert rec.config.trainer == before.trainer
    assert OPTIONS["trainer"]["max_epochs"] == 2
