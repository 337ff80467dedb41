"""Runs beside their baselines, with a user's history ranked and removed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml

from lares import LaresModel
from lares.cli import main
from lares.data import load_dataset
from lares.errors import ConfigError
from lares.evaluation import evaluate, evaluate_popularity
from lares.training.comparison import popularity_rows
from lares.training.config import (
    RECIPES_FOLDER,
    PosttrainConfig,
    TrainConfig,
    TrainerOptions,
    read_config,
    recipes,
)
from lares.training.interrupts import Interrupted
from lares.training.options_file import read_yaml
from lares.training.result import RANKINGS, TrainResult
from lares.training.rpt import posttrain
from lares.training.spt import train
from lares.training.trainer import Trainer
from tests.training.helpers import small_config, small_posttrain_config

ONE = {"max_epochs": 1, "baselines": ["popularity"]}


@pytest.mark.parametrize("remove_history", [False, True])
def test_both_rankings_are_those_of_evaluate(
    interactions: Path, tmp_path: Path, remove_history: bool
) -> None:
    """Whichever of them the run watches."""
    config = small_config(interactions, trainer={**ONE, "remove_history": remove_history})
    result = train(config, tmp_path / "run", progress=False)
    dataset, model = load_dataset(interactions), LaresModel.from_pretrained(tmp_path / "run")
    assert list(result.compared) == list(RANKINGS.values())
    for removed, ranking in RANKINGS.items():
        found = evaluate(model, dataset.test, depths=[1, 4], remove_history=removed)
        popularity = evaluate_popularity(dataset, dataset.test, remove_history=removed)
        assert result.compared[ranking] == {
            "popularity": popularity,
            "depth 1": found[1],
            "depth 4": found[4],
        }
        assert popularity_rows(dataset)[ranking]["popularity"] == popularity
    assert result.compared[RANKINGS[remove_history]]["depth 4"] == result.test[4]
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (saved["compared"], saved["curves"]) == (result.compared, "curves.png")
    assert TrainResult.load(tmp_path / "run" / "result.json") == result


def test_the_next_command_is_one(interactions: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(small_config(interactions, trainer=ONE).to_dict())
    )
    main(["train", f"--config={tmp_path / 'run.yaml'}", f"--out={tmp_path / 'run'}"])
    told = capsys.readouterr().out
    for ranking in RANKINGS.values():
        assert f"Test, {ranking}:" in told
    assert f"curves: {tmp_path / 'run' / 'curves.png'}" in told
    line = told.splitlines()[-1]
    assert line.startswith("next: lares recommend ")
    main(line.removeprefix("next: lares ").split())
    assert len(capsys.readouterr().out.strip().split(",")) == 10


def test_without_baselines_a_result_has_its_own_ranking(
    interactions: Path, tmp_path: Path, capsys
) -> None:
    """As runs do that are older than the option; asked for later, they are added."""
    none = small_config(interactions, trainer={**ONE, "baselines": []})
    first = train(none, tmp_path / "run", progress=False)
    assert first.compared == {}
    path = tmp_path / "run" / "config.yaml"
    options = yaml.safe_load(path.read_text())
    del options["trainer"]["baselines"]
    path.write_text(yaml.safe_dump(options))
    assert read_config(path).trainer.baselines == []
    old = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in ("compared", "curves", "next"):
        del old[name]
    text = json.dumps(old)
    (tmp_path / "run" / "result.json").write_text(text)
    main(["train", f"--out={tmp_path / 'run'}", "--resume"])
    assert "DEPTH" in capsys.readouterr().out.upper()
    assert (tmp_path / "run" / "result.json").read_text() == text
    asked = small_config(interactions, trainer={**ONE, "baselines": ["popularity"]})
    again = train(asked, tmp_path / "run", resume=True, progress=False)
    assert again.test == first.test
    assert "popularity" in again.compared["history ranked"]


def test_sasrec_is_the_run_without_recurrence(interactions: Path, tmp_path: Path) -> None:
    config = small_config(
        interactions,
        trainer={**ONE, "baselines": ["sasrec"], "seed": 3},
        objective={"deep_supervision": 0.5},
    )
    result = train(config, tmp_path / "run", progress=False)
    folder = tmp_path / "run" / "baseline-sasrec"
    own = read_config(folder / "config.yaml").to_dict()
    assert own["model"]["n_core_layers"] == 0
    assert own["objective"]["alpha"] == own["objective"]["gamma"] == 0
    assert own["optimizer"] == config.to_dict()["optimizer"]
    assert own["trainer"] == {**config.to_dict()["trainer"], "baselines": ["popularity"]}
    alone = TrainResult.load(folder / "result.json")
    assert alone is not None
    for ranking, rows in result.compared.items():
        assert list(rows) == ["sasrec", "depth 1", "depth 4"]
        assert rows["sasrec"] == alone.compared[ranking]["depth 0"]


def test_a_run_stopped_in_its_baseline_goes_on(
    interactions: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Trainer, "_time_is_up", False)  # so that both take as many epochs
    config = small_config(interactions, trainer={**ONE, "baselines": ["popularity", "sasrec"]})
    whole = train(config, tmp_path / "whole", progress=False)
    step = Trainer._step

    def stops(self, indices):
        if not self.model.config.is_recurrent:
            signal.raise_signal(signal.SIGINT)
        return step(self, indices)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stops)
        with pytest.raises(Interrupted) as stopped:
            train(config, tmp_path / "run", progress=False)
    assert f"lares train --out {tmp_path / 'run'} --resume" in str(stopped.value)
    kept = TrainResult.load(tmp_path / "run" / "result.json")
    assert kept is not None
    assert (kept.test, kept.compared) == (whole.test, {})
    found = train(config, tmp_path / "run", resume=True, progress=False)
    assert found.compared == whole.compared
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert train(config, tmp_path / "run", resume=True, progress=False) == found
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_no_epoch_begins_that_time_does_not_reach_for(interactions: Path, tmp_path: Path) -> None:
    """But for the first, which is validated though it would not be its turn."""
    config = small_config(interactions, trainer={"max_epochs": 4, "valid_every": 3})
    result = train(config, tmp_path / "run", progress=False, most_seconds=1e-9)
    assert (result.epochs, result.best_epoch) == (1, 1)
    more = train(config, tmp_path / "run", progress=False, resume=True, most_seconds=3600.0)
    assert more.epochs == 4


def test_post_training_is_held_against_its_start(interactions: Path, tmp_path: Path) -> None:
    start = train(small_config(interactions, trainer=ONE), tmp_path / "run", progress=False)
    config = small_posttrain_config(interactions, tmp_path / "run", trainer=ONE)
    result = posttrain(config, tmp_path / "rpt", progress=False)
    for ranking, rows in result.compared.items():
        names = [f"{when}, depth {depth}" for when in ("before", "after") for depth in (1, 4)]
        assert list(rows) == ["popularity", *names]
        assert rows["before, depth 4"] == start.compared[ranking]["depth 4"]


def test_quick_names_popularity_and_classes_name_nothing() -> None:
    named = {
        recipe: read_yaml(RECIPES_FOLDER / f"{recipe}.yaml").get("trainer", {}).get("baselines")
        for recipe in recipes()
    }
    assert {recipe: names for recipe, names in named.items() if names} == {"quick": ["popularity"]}
    assert TrainerOptions().baselines == []


def test_sasrec_has_as_many_layers_as_the_model() -> None:
    options = {"n_pre_layers": 1, "n_core_layers": 2}
    sasrec = TrainConfig.from_dict({"model": options}).without_recurrence()
    assert (sasrec.model["n_pre_layers"], sasrec.model["n_core_layers"]) == (3, 0)
    assert (sasrec.objective.alpha, sasrec.objective.gamma) == (0, 0)


def test_baselines_that_cannot_be(interactions: Path, tmp_path: Path) -> None:
    asked = {"baselines": ["sasrec"]}
    with pytest.raises(ConfigError, match="no recurrence to leave out"):
        small_config(
            interactions, model={"n_core_layers": 0}, objective={"gamma": 0}, trainer=asked
        )
    with pytest.raises(ConfigError, match="baselines is 'mean'; it must be one of popularity, sa"):
        small_config(interactions, trainer={"baselines": ["mean"]})
    with pytest.raises(ConfigError, match="it must be a list of words"):
        small_config(interactions, trainer={"baselines": "popularity"})
    base = small_posttrain_config(interactions, tmp_path).to_dict()
    with pytest.raises(ConfigError, match="lares train alone can train"):
        PosttrainConfig.from_dict({**base, "trainer": {**base["trainer"], **asked}})
