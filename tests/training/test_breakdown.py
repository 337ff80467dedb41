"""A run keeps how accurate it is by depth, popularity and history length, and TensorBoard shows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lares.cli import main
from lares.data import load_dataset
from lares.training.breakdown import METRICS, Breakdown, weights_digest
from lares.training.run_folder import RunFolder
from lares.training.spt import train
from lares.training.tested import RunTest
from tests.training.helpers import small_config

TRAINER = {"test_depths": [1, 3], "tensorboard": True, "remove_history": True}


@pytest.fixture(scope="module")
def run(interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is not tested at its usual depth, 2, by itself."""
    folder = tmp_path_factory.mktemp("breakdown") / "run"
    config = small_config(interactions, model={"mean_depth": 2}, trainer=TRAINER)
    train(config, folder, progress=False)
    return RunFolder(folder)


def kept(run: RunFolder) -> Breakdown:
    found = Breakdown.load(run.breakdown)
    assert found is not None
    return found


def test_depths_are_those_of_the_result_and_the_usual_one(run: RunFolder) -> None:
    found, result = kept(run), json.loads(run.result.read_text())["test"]
    assert [row["depth"] for row in found.by_depth] == [1, 2, 3]
    assert list(result) == ["1", "3"]
    for row in found.by_depth:
        for metric in METRICS:
            assert (
                str(row["depth"]) not in result or row[metric] == result[str(row["depth"])][metric]
            )
    assert found.depth == 2


def test_groups_make_up_the_whole(run: RunFolder, interactions: Path) -> None:
    found, test = kept(run), load_dataset(interactions).test
    whole = next(row for row in found.by_depth if row["depth"] == 2)
    for table in (found.by_popularity, found.by_length):
        assert len(table) > 1
        assert sum(row["samples"] for row in table) == len(test)
        for metric in METRICS:
            mean = sum(row["samples"] * row[metric] for row in table) / len(test)
            assert mean == pytest.approx(whole[metric])
    lengths = test.ends - test.starts
    for row in found.by_length:
        within = (lengths >= row["shortest"]) & (lengths <= row["longest"])
        assert within.sum() == row["samples"]


def test_tenths_are_those_of_evaluate(run: RunFolder, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    main(["evaluate", str(run.path), "--depths=2", "--by_popularity", f"--output={output}"])
    tenths = json.loads(output.read_text())["by_popularity"]["2"]
    found = {str(row["tenth"]): row for row in kept(run).by_popularity}
    assert list(found) == list(tenths)
    for tenth, row in found.items():
        for name in (*METRICS, "samples", "least_met", "most_met"):
            assert row[name] == tenths[tenth][name]


def test_it_can_be_computed_afterwards(run: RunFolder, interactions: Path) -> None:
    assert RunTest.of(run, str(interactions)).breakdown(torch.device("cpu")) == kept(run)


def test_of_which_model_it_is(run: RunFolder, tmp_path: Path) -> None:
    found, weights = kept(run), weights_digest(run.best)
    assert found.answers(weights, "shared", True)
    assert not found.answers(weights, "drawn", True)
    assert not found.answers(weights, "shared", False)
    assert not found.answers(weights[::-1], "shared", True)
    assert Breakdown.load(tmp_path / "none.json") is None
    for broken in ({"depth": 7}, {"by_length": [{"shortest": 1}]}, {"by_depth": "text"}):
        file = tmp_path / "broken.json"
        file.write_text(json.dumps(dataclasses.asdict(found) | broken))
        assert Breakdown.load(file) is None
    file.write_text('{"weights": ')
    assert Breakdown.load(file) is None


def test_tensorboard_shows_it(run: RunFolder, interactions: Path) -> None:
    """Of a run that goes on, what the last test came to."""
    for epochs in (2, 3):
        trainer = {**TRAINER, "max_epochs": epochs}
        config = small_config(interactions, model={"mean_depth": 2}, trainer=trainer)
        train(config, run.path, resume=True, progress=False)
        read = EventAccumulator(str(run.tensorboard / "test")).Reload()
        found = kept(run)
        tables = {
            "by_depth": (found.by_depth, "depth"),
            "by_popularity_tenth": (found.by_popularity, "tenth"),
            "by_history_length": (found.by_length, "longest"),
        }
        for name, (rows, place) in tables.items():
            for metric in METRICS:
                shown = [(each.step, each.value) for each in read.Scalars(f"{name}/{metric}")]
                assert [step for step, _ in shown] == [row[place] for row in rows]
                values = [row[metric] for row in rows]
                assert [value for _, value in shown] == pytest.approx(values)
        (picture,) = read.Images("curves")
        assert picture.step == epochs
        assert picture.encoded_image_string == run.curves.read_bytes()
