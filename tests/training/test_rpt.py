"""Post-training from a trained model to a result."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lares import LaresModel
from lares.data import load_dataset
from lares.errors import CheckpointError, ConfigError
from lares.evaluation import evaluate
from lares.objectives.rpt.config import RptConfig
from lares.objectives.rpt.prefixes import RptObjective
from lares.training.config import PosttrainConfig, read_config
from lares.training.interrupts import Interrupted
from lares.training.rpt import posttrain, promising_samples
from lares.training.rpt_phases import RptPhase
from lares.training.spt import train
from lares.training.steps import Place
from tests.training.helpers import (
    FILES,
    assert_same_weights,
    by_the_command,
    files_in,
    small_config,
    small_posttrain_config,
    stopped_after_every_step,
)

PLACE = Place(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a model that knows something, not all."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(small_config(interactions, trainer={"max_epochs": 3}), folder, progress=False)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_learns_and_leaves_everything(interactions: Path, trained: Path, tmp_path: Path) -> None:
    config = small_posttrain_config(
        interactions,
        trained,
        objective={"k": 2, "ndcg_reward": 1.0, "beta": 0.1},
        optimizer={"lr": 5e-4},
        trainer={"max_epochs": 6, "tensorboard": True},
    )
    folder = tmp_path / "run"
    result = posttrain(config, folder, progress=False)
    found = files_in(folder)
    assert FILES | {"start/model.safetensors", "start/items.json", "start/samples.npy"} <= found
    assert any(name.startswith("tensorboard/events") for name in found)

    # Epoch 0 is the model it started from, and the best is the best of all epochs.
    logged = rows(folder)
    assert [int(row["epoch"]) for row in logged] == list(range(7))
    assert logged[0]["reward"] == ""
    dataset, start = load_dataset(interactions), LaresModel.from_pretrained(trained / "best")
    seed = config.trainer.seed
    valid = evaluate(start, dataset.valid, depths=[4], seed=seed, states="drawn")[4]
    assert float(logged[0]["valid_ndcg@10"]) == valid["ndcg@10"]
    assert max(float(row["valid_ndcg@10"]) for row in logged) == result.valid_best

    assert result.best_epoch > 0
    assert 0 < float(logged[-1]["informative"]) < 1
    assert 0 < float(logged[-1]["reward"]) < 2
    assert result.start == evaluate(start, dataset.test, depths=[1, 4], seed=seed)
    best = LaresModel.from_pretrained(folder / "best")
    assert result.test == evaluate(best, dataset.test, depths=[1, 4])  # with its seed, the run's
    assert json.loads((folder / "result.json").read_text())["start"]["4"] == result.start[4]
    assert best.config.dropout == 0.1
    assert read_config(folder / "config.yaml") == config


@pytest.mark.parametrize(
    "objective",
    [
        {"updates": 3, "clip": 0.05},
        {"kind": "cross_entropy", "beta": 0.0},
        {"pre_block": "shared", "filter_top": 0},
    ],
    ids=["updates", "cross_entropy", "shared"],
)
def test_options_do_something(
    interactions: Path, trained: Path, tmp_path: Path, objective: dict
) -> None:
    one_epoch = {"max_epochs": 1}
    config = small_posttrain_config(interactions, trained, trainer=one_epoch)
    posttrain(config, tmp_path / "usual", progress=False)
    other = small_posttrain_config(interactions, trained, trainer=one_epoch, objective=objective)
    posttrain(other, tmp_path / "other", progress=False)
    usual, found = rows(tmp_path / "usual")[1], rows(tmp_path / "other")[1]
    assert found["divergence"] != usual["divergence"]
    assert (float(found["clipped"]) > 0) == ("updates" in objective)
    if objective.get("kind") == "cross_entropy":
        # It minimises just that.
        assert float(found["loss"]) == pytest.approx(-float(found["log_probability"]))


def test_what_is_best_is_never_worse_than_the_start(
    interactions: Path, trained: Path, tmp_path: Path
) -> None:
    config = small_posttrain_config(
        interactions, trained, optimizer={"lr": 0.5}, trainer={"max_epochs": 2}
    )
    result = posttrain(config, tmp_path / "run", progress=False)
    assert result.best_epoch == 0
    assert result.test == result.start
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    for name, tensor in load_file(trained / "best" / "model.safetensors").items():
        assert best[name].equal(tensor), name


def test_listwise_baseline_learns(interactions: Path, trained: Path, tmp_path: Path) -> None:
    config = small_posttrain_config(interactions, trained, objective={"kind": "cross_entropy"})
    posttrain(config, tmp_path / "run", progress=False)
    start, *_, last = rows(tmp_path / "run")
    assert float(last["valid_ndcg@10"]) > float(start["valid_ndcg@10"]) + 0.02


def test_filter(interactions: Path, trained: Path) -> None:
    model, split = LaresModel.from_pretrained(trained / "best"), load_dataset(interactions).train
    few = promising_samples(model, split, RptConfig(filter_top=2, filter_passes=1), seed=1)
    again = promising_samples(model, split, RptConfig(filter_top=2, filter_passes=3), seed=1)
    more = promising_samples(model, split, RptConfig(filter_top=5, filter_passes=1), seed=1)
    assert 0 < len(few) < len(more) < len(split)
    assert set(few) <= set(more)
    assert set(few) < set(again)  # other initial states, other ranks
    everything = promising_samples(model, split, RptConfig(filter_top=0), seed=1)
    assert everything.tolist() == list(range(len(split)))


def test_first_update_of_several_is_the_only_one(interactions: Path, trained: Path) -> None:
    """Before anything has changed all ratios are 1, and clipping changes nothing."""
    gradients = []
    for updates in (1, 2):
        model = LaresModel.from_pretrained(trained / "best").double()
        objective = RptObjective(model, RptConfig(updates=updates, k=3)).train()
        phase = RptPhase(objective, load_dataset(interactions).train, 7, PLACE)
        losses = next(phase.updates(objective, phase.make(np.arange(40), 3)))
        losses[0].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for once, first in zip(*gradients, strict=True):
        torch.testing.assert_close(first, once, atol=1e-12, rtol=1e-9)


def test_nothing_moves_where_all_rollouts_fare_alike(interactions: Path, trained: Path) -> None:
    """Without advantages the gradient is the divergence's: none, where policy and reference agree."""
    model = LaresModel.from_pretrained(trained / "best").double()
    rpt = RptConfig(k=1000)  # everything is rewarded
    objective = RptObjective(model, rpt).eval()
    phase = RptPhase(objective, load_dataset(interactions).train, 7, PLACE)
    batch, depths, seed, _ = phase.make(np.arange(40), 3)
    losses, rollouts = objective(batch, depths, seed, seed)  # the reference draws the same states
    assert rollouts.rewards.eq(1).all()
    assert float(losses.informative) == 0.0
    assert float(losses.divergence) == pytest.approx(0.0, abs=1e-12)
    losses.total.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e-12


def test_depths_and_draws_differ_between_rollouts(interactions: Path, trained: Path) -> None:
    model = LaresModel.from_pretrained(trained / "best")
    objective = RptObjective(model, RptConfig(rollouts=3)).train()
    phase = RptPhase(objective, load_dataset(interactions).train, 7, PLACE)
    drawn = {tuple(phase.make(np.arange(8), step)[1]) for step in range(20)}
    assert len(drawn) > 10
    assert any(len(set(depths)) > 1 for depths in drawn)
    batch, _, seed, reference_seed = phase.make(np.arange(8), 0)
    _, rollouts = objective(batch, [2, 2, 2], seed, reference_seed)
    first, second, third = rollouts.old.unflatten(1, (3, 2)).unbind(1)
    assert not first.equal(second)
    assert not second.equal(third)
    assert not rollouts.reference[:, :2].equal(rollouts.reference[:, 2:4])


def test_interrupted_after_every_step(
    interactions: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run ends as the whole one, even where the model that it started from is gone."""
    import shutil

    start = tmp_path / "start"
    shutil.copytree(trained, start)
    config = small_posttrain_config(interactions, start, objective={"updates": 2})
    posttrain(config, tmp_path / "whole", progress=False)

    def goes(_: Interrupted) -> None:
        shutil.rmtree(start, ignore_errors=True)

    starts = stopped_after_every_step(posttrain, config, tmp_path / "cut", monkeypatch, goes)
    assert starts > 5
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    for name in ("checkpoints/last", "best/model"):
        found = load_file(tmp_path / "cut" / f"{name}.safetensors")
        for key, tensor in load_file(tmp_path / "whole" / f"{name}.safetensors").items():
            assert found[key].equal(tensor), key


def test_two_processes_give_the_one_process_result(
    interactions: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = {"precision": "64-true", "max_epochs": 1}
    options = {"optimizer": {"batch_size": 61}, "objective": {"k": 2}}
    config = small_posttrain_config(interactions, trained, trainer=trainer, **options)
    posttrain(config, tmp_path / "one", progress=False)
    trainer["devices"] = 2
    config = small_posttrain_config(interactions, trained, trainer=trainer, **options)
    assert "After:" in by_the_command("posttrain", config, tmp_path / "two")
    for single, double in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name, value in single.items():
            if value:
                assert float(double[name]) == pytest.approx(float(value), rel=1e-6, abs=1e-7), name
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_what_cannot_be(interactions: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def fails(error: type[Exception], match: str, start: Path, /, **sections) -> None:
        config = small_posttrain_config(interactions, start, **sections)
        with pytest.raises(error, match=match):
            posttrain(config, folder, progress=False)
        assert not folder.exists()  # nothing is left behind

    fails(CheckpointError, "neither a run folder", tmp_path)
    fails(ConfigError, r"start\.checkpoint is empty", trained, start={"checkpoint": ""})
    plain = tmp_path / "plain"
    config = small_config(
        interactions,
        model={"n_core_layers": 0},
        objective={"alpha": 0.0, "gamma": 0.0},
        trainer={"max_epochs": 1},
    )
    train(config, plain, progress=False)
    fails(ConfigError, "it has no rollouts to learn from", plain)
    model = LaresModel.from_pretrained(trained / "best")
    with torch.no_grad():  # scores all items alike: no target is ever among the first
        model.encoder.item_embedding.weight[:] = 0.0
    model.save_pretrained(tmp_path / "flat")
    (tmp_path / "flat" / "items.json").write_text((trained / "best" / "items.json").read_text())
    fails(ConfigError, "raise objective.filter_top", tmp_path / "flat", objective={"filter_top": 1})


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("objective", {"rollouts": 1}, "objective.rollouts is 1"),
        ("objective", {"beta": -1.0}, "objective.beta is -1.0"),
        ("objective", {"clip": 1.0}, "objective.clip is 1.0"),
        ("objective", {"kind": "ppo"}, "objective.kind is 'ppo'; it must be one of policy"),
        ("objective", {"pre_block": "none"}, "objective.pre_block is 'none'"),
        ("objective", {"recall_reward": 0.0}, "are both 0"),
        ("objective", {"gamma": 0.5}, "unknown option of objective 'gamma'"),
        ("start", {"dropout": 1.0}, "start.dropout is 1.0"),
        ("model", {"d_model": 16}, "unknown section 'model'"),
    ],
)
def test_bad_options(tmp_path: Path, section: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_posttrain_config(tmp_path, tmp_path, **{section: options})
    assert message in str(caught.value)


def test_published_settings_are_the_defaults() -> None:
    config = PosttrainConfig.from_dict({})
    assert (config.objective.rollouts, config.objective.beta, config.objective.k) == (4, 1.0, 10)
    assert (config.objective.recall_reward, config.objective.ndcg_reward) == (1.0, 0.0)
    assert (config.optimizer.lr, config.optimizer.batch_size) == (5e-4, 400)
    assert (config.start.dropout, config.objective.filter_top) == (0.1, 100)
