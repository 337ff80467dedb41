"""A run from data to result, and what its folder holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.data import load_dataset
from lares.data.batches import pack
from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, ConfigError, DataError, LaresError
from lares.evaluation import evaluate, evaluate_popularity
from lares.objectives.spt.prefixes import SptObjective
from lares.training.config import TrainConfig, read_yaml, recipes
from lares.training.spt import train
from lares.training.steps import ResidentSamples
from tests.training.helpers import FILES, files_in, small_config


def run(config: TrainConfig, folder: Path, **options):
    return train(config, folder, progress=False, **options)


def test_learns_and_leaves_everything(interactions: Path, tmp_path: Path) -> None:
    config = small_config(
        interactions,
        model={"dropout": 0.1, "attn_dropout": 0.1},
        trainer={"max_epochs": 12, "tensorboard": True},
    )
    result = run(config, tmp_path / "run")
    found = files_in(tmp_path / "run")
    assert FILES | {"best/config.json"} <= found
    assert any(name.startswith("tensorboard/events") for name in found)
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")

    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv", newline="")))
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    assert float(rows[-1]["recommendation"]) < float(rows[0]["recommendation"])
    assert max(float(row["valid_ndcg@10"]) for row in rows) == pytest.approx(result.valid_best)

    # The walks go one or two items on: two items in 25 explain everything.
    dataset = load_dataset(interactions)
    popular = evaluate_popularity(dataset, dataset.test)
    assert result.test[4]["recall@5"] > 2 * popular["recall@5"]

    # The result is the best model's, which anybody can load and evaluate.
    model = LaresModel.from_pretrained(tmp_path / "run" / "best")
    again = evaluate(model, dataset.test, depths=[1, 4])  # with its seed, the run's
    assert again == result.test
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["test"]["4"] == result.test[4]
    assert set(saved["parts"]) == {"data", "forward", "backward", "optimizer"}
    assert Vocabulary.load(tmp_path / "run" / "best" / "items.json").n_items == model.config.n_items
    assert TrainConfig.from_dict(
        read_yaml(tmp_path / "run" / "config.yaml")
    ) == TrainConfig.from_dict(config.to_dict())


def test_early_stop(interactions: Path, tmp_path: Path) -> None:
    config = small_config(
        interactions,
        optimizer={"lr": 1e-9},
        trainer={"max_epochs": 50, "patience": 2},
    )
    result = run(config, tmp_path / "run")
    assert result.epochs == result.best_epoch + 2 < 50


def test_epochs_without_validation(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions, trainer={"max_epochs": 3, "valid_every": 2})
    run(config, tmp_path / "run")
    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv", newline="")))
    assert [bool(row["valid_ndcg@10"]) for row in rows] == [False, True, True]


def test_batches_made_on_the_device(interactions: Path) -> None:
    train_split = load_dataset(interactions).train
    indices = np.random.default_rng(0).permutation(len(train_split))[:50]
    model = LaresConfig(n_items=100, max_length=5)
    resident = ResidentSamples(train_split, model, torch.device("cpu"))
    histories, targets = resident.collate(indices, torch.arange(50))
    found = histories.items, histories.lengths, targets
    for tensor, expected in zip(found, pack(train_split, indices, 5), strict=True):
        assert tensor.dtype == torch.int64
        assert tensor.tolist() == expected.tolist()


def test_without_recurrence(interactions: Path, tmp_path: Path) -> None:
    config = small_config(
        interactions, model={"n_core_layers": 0}, objective={"alpha": 0.0, "gamma": 0.0}
    )
    assert set(run(config, tmp_path / "run").test) == {0}


def test_bf16_autocast(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions, trainer={"precision": "bf16-mixed", "max_epochs": 1})
    exact = small_config(interactions, trainer={"max_epochs": 1})
    rough, fine = run(config, tmp_path / "a"), run(exact, tmp_path / "b")
    assert rough.valid_best == pytest.approx(fine.valid_best, abs=0.1)
    losses = [
        float(next(csv.DictReader(open(tmp_path / name / "metrics.csv", newline="")))["loss"])
        for name in ("a", "b")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_folder_rules(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions, trainer={"max_epochs": 1})
    with pytest.raises(DataError, match="no file or folder"):
        run(small_config(tmp_path / "none.parquet"), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # wrong data leaves nothing behind
    run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already; give --resume"):
        run(config, tmp_path / "run")
    other = small_config(interactions, optimizer={"lr": 0.5}, trainer={"max_epochs": 1})
    with pytest.raises(ConfigError, match=r"started with other options \(optimizer\.lr\)"):
        run(other, tmp_path / "run", resume=True)
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no run to resume"):
        run(config, tmp_path / "stray", resume=True)


def test_nan_loss_stops_the_run_and_keeps_the_state(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = SptObjective.forward, []

    def poisoned(self, *args, **options):
        calls.append(1)
        losses = forward(self, *args, **options)
        return losses._replace(total=losses.total * float("nan")) if len(calls) == 9 else losses

    monkeypatch.setattr(SptObjective, "forward", poisoned)
    config = small_config(interactions, trainer={"max_epochs": 5, "checkpoint_every_steps": 1})
    with pytest.raises(LaresError, match=r"loss of step 9 is not finite \(total nan"):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    assert run(config, tmp_path / "run", resume=True).epochs >= 1


@pytest.mark.parametrize("keep", [0, 8, 1000, -100])
def test_broken_state(interactions: Path, tmp_path: Path, keep: int) -> None:
    config = small_config(interactions, trainer={"max_epochs": 1})
    run(config, tmp_path / "run")
    state = tmp_path / "run" / "checkpoints" / "last.safetensors"
    state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is truncated or corrupt"):
        run(config, tmp_path / "run", resume=True)


def test_state_of_something_else(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions, trainer={"max_epochs": 1})
    run(config, tmp_path / "run")
    state = tmp_path / "run" / "checkpoints" / "last.safetensors"
    state.write_bytes((tmp_path / "run" / "best" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="is not the state of a training run"):
        run(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("trainer", {"patience": -1}, "trainer.patience is -1"),
        ("trainer", {"precision": "8-true"}, "trainer.precision is '8-true'"),
        ("trainer", {"test_depths": []}, "trainer.test_depths is empty"),
        ("trainer", {"test_depths": [0]}, "trainer.test_depths is 0"),
        (
            "trainer",
            {"patienc": 3},
            "unknown option of trainer 'patienc'; did you mean 'patience'?",
        ),
        ("optimizer", {"lr": -1.0}, "optimizer.lr is -1.0"),
        ("optimizer", {"batch_size": 4}, "need at least 8"),
        ("objective", {"gamma": -1.0}, "gamma is -1.0"),
        ("model", {"n_core_layers": 0}, "set objective.gamma=0"),
        ("model", {"dropuot": 0.1}, "unknown model option 'dropuot'; did you mean 'dropout'?"),
        ("data", {"format": "xls"}, "data.format is 'xls'"),
        ("modle", {"d_model": 3}, "unknown section 'modle'; did you mean 'model'?"),
    ],
)
def test_bad_options(tmp_path: Path, section: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_config(tmp_path, **{section: options})
    assert message in str(caught.value)


def test_recipes_are_valid() -> None:
    assert recipes() == ["demo", "published", "quick", "sasrec", "shared"]
    for name in recipes():
        from lares.training.config import RECIPES_FOLDER

        TrainConfig.from_dict(read_yaml(RECIPES_FOLDER / f"{name}.yaml"))


def test_published_recipe_is_the_default() -> None:
    from lares.training.config import RECIPES_FOLDER

    assert TrainConfig.from_dict({}) == TrainConfig.from_dict(
        read_yaml(RECIPES_FOLDER / "published.yaml")
    )


@pytest.mark.gpu
def test_on_a_gpu(interactions: Path, tmp_path: Path) -> None:
    on_cpu = run(small_config(interactions), tmp_path / "cpu")
    on_gpu = run(small_config(interactions, trainer={"accelerator": "cuda"}), tmp_path / "gpu")
    assert on_gpu.valid_best == pytest.approx(on_cpu.valid_best, abs=0.05)
    assert torch.cuda.max_memory_allocated() > 0
