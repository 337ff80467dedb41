"""What a run's folder says of the run: its state, what it came to, what it is like, what is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lares.training.config import RECIPES_FOLDER, TrainConfig, merge_options, read_config, recipes
from lares.training.likeness import likeness
from lares.training.lock import held
from lares.training.options_file import read_yaml
from lares.training.summary import find_runs, shown_name, summary_of

SAVED = Path(__file__).parent.parent / "saved" / "runs"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A copy of a run that an earlier revision finished."""
    return Path(shutil.copytree(SAVED / "train_users", tmp_path / "run"))


def test_states_of_old_runs() -> None:
    states = {path.name: summary_of(path).state for path in find_runs(SAVED)}
    assert states == {
        "posttrain_prefixes": "stopped",
        "posttrain_users": "stopped",
        "posttrain_users_cross_entropy": "finished",
        "train_prefixes": "stopped",
        "train_text": "stopped",
        "train_users": "finished",
    }


def test_what_a_run_came_to() -> None:
    found = summary_of(SAVED / "train_users")
    result = json.loads((SAVED / "train_users" / "result.json").read_text())
    assert (found.kind, found.epochs, found.best) == ("train", 3, (3, result["valid_best"]))
    assert found.depth == 2
    assert found.tested is not None  # at 1 and 3, which are as near
    assert found.tested[0] == 1
    assert found.tested[1]["ndcg@10"] == result["test"]["1"]["ndcg@10"]
    assert found.seconds == pytest.approx(result["seconds"], abs=0.1)
    unfinished = summary_of(SAVED / "posttrain_users")
    assert (unfinished.kind, unfinished.epochs, unfinished.tested) == ("posttrain", 1, None)
    assert unfinished.best == (1, 0.4058441095483725)


def test_a_run_that_is_written_to_is_running(finished: Path) -> None:
    with held(finished):
        assert summary_of(finished).state == "running"
    (finished / ".lock").write_text("of a process that was killed")
    assert summary_of(finished).state == "finished"


def test_more_was_asked_of_it(finished: Path) -> None:
    """A run that is to go on is not finished, though the result of its first epochs is there."""
    config = finished / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 5"))
    assert summary_of(finished).state == "stopped"
    config.write_text(config.read_text().replace("patience: 15", "patience: 1"))
    assert summary_of(finished).state == "stopped"  # the last epoch was the best
    metrics = finished / "metrics.csv"
    metrics.write_text(metrics.read_text() + "4,12,1,1,1,0.0,1,0.1,0.1\n")
    assert summary_of(finished).state == "stopped"  # the result is of three epochs
    result = finished / "result.json"
    result.write_text(result.read_text().replace('"epochs": 3', '"epochs": 4'))
    assert summary_of(finished).state == "finished"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def written(text: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(text)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "there is no file": ("config.yaml", Path.unlink),
    "is not YAML that can be read": ("config.yaml", written("model: {")),
    "unknown section 'hydra'": ("config.yaml", written("hydra: {run: 1}\n")),
    "it must hold options by section": ("config.yaml", written("[1, 2]\n")),
    "there is no column epoch": ("metrics.csv", written("a,b\n1,2\n")),
    "has not as many cells": ("metrics.csv", written("epoch,loss,valid_ndcg@10\n1,2\n")),
    "has 'high' for its loss": ("metrics.csv", written("epoch,loss\n1,high\n")),
    "has 'nan' for its valid_ndcg@10": ("metrics.csv", written("epoch,valid_ndcg@10\n1,nan\n")),
    "is not readable JSON": ("result.json", cut),
    "does not hold a JSON object": ("result.json", written("[]")),
    "is no result of a run": ("result.json", written('{"test": {"1": {"ndcg@10": 1}}}')),
    "no depth was tested": ("result.json", written('{"test": {}, "start": {}}')),
    "last.safetensors is truncated or corrupt": ("checkpoints/last.safetensors", cut),
    "its header has no end": ("checkpoints/last.safetensors", written("no tensors at all")),
    "model.safetensors is truncated or corrupt": ("best/model.safetensors", cut),
    "there is no file ": ("best/model.safetensors", Path.unlink),
    "config.json": ("best/config.json", written("{}")),
    "timing.csv is damaged": ("timing.csv", written("\0")),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_damage_is_said_and_the_rest_is_told(reason: str, finished: Path) -> None:
    name, break_it = DAMAGE[reason]
    break_it(finished / name)
    found = summary_of(finished)
    assert found.state == "damaged"
    assert reason in found.reason
    assert name in found.reason
    assert "\n" not in found.reason
    assert list(find_runs(finished.parent)) == [finished]
    if name == "checkpoints/last.safetensors":
        assert found.tested is not None
        assert found.best is not None


def test_runs_are_found_in_folders_in_folders(finished: Path) -> None:
    folder = finished.parent
    for name in ("b/inner", "a", ".hidden", "a/below"):
        shutil.copytree(finished, folder / name)
    (folder / "c").mkdir()
    (folder / "c" / "linked").symlink_to(finished)
    (folder / "c" / "round").symlink_to(folder)
    (folder / "c" / "nowhere").symlink_to(folder / "gone")
    (folder / "model").mkdir()
    shutil.copy(finished / "best" / "config.json", folder / "model" / "config.json")
    found = [shown_name(path, folder) for path in find_runs(folder)]
    assert found == ["a", "b/inner", "c/linked", "run"]
    assert [shown_name(path, finished) for path in find_runs(finished)] == ["run"]


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_is_like_itself(recipe: str) -> None:
    options = read_yaml(RECIPES_FOLDER / f"{recipe}.yaml")
    assert likeness(TrainConfig.from_dict(merge_options({"data": {"path": "x"}}, options))) == (
        recipe,
        {},
    )
    own = {
        "model": {"d_model": 24},
        "optimizer": {"lr": 0.5},
        "trainer": {"seed": 7, "max_epochs": 2},
    }
    found = likeness(TrainConfig.from_dict(merge_options(options, own)))
    assert found.recipe == recipe
    assert found.differs == {"model.d_model": 24, "optimizer.lr": 0.5, "trainer.seed": 7}


def test_what_old_runs_are_like() -> None:
    assert likeness(read_config(SAVED / "train_users" / "config.yaml")).recipe == "shared"
    posttrained = likeness(read_config(SAVED / "posttrain_users_cross_entropy" / "config.yaml"))
    assert posttrained.recipe == ""
    assert posttrained.differs["objective.kind"] == "cross_entropy"
    assert "start.checkpoint" not in posttrained.differs
