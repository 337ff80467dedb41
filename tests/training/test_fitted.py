"""Options that fit the data's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lares.cli.train import parse
from lares.data.dataset import Dataset, Sequences, leave_one_out
from lares.data.readers import load_dataset
from lares.data.vocabulary import Vocabulary
from lares.errors import ConfigError
from lares.model.model import LaresModel
from lares.training.config import (
    DEFAULT_RECIPE,
    PosttrainConfig,
    SamplingOptions,
    TrainConfig,
    read_config,
)
from lares.training.fitted import fit_to_data
from lares.training.spt import train
from tests.training.helpers import small_config

OPEN = {
    "model": {"max_length": 0},
    "optimizer": {"batch_size": 0},
    "trainer": {"patience": 0},
}


def dataset_of(users: int, length: int) -> Dataset:
    """``users`` with ``length`` interactions each."""
    items = (np.arange(users * length) % 50 + 1).astype(np.int32)
    offsets = np.arange(users + 1) * length
    vocabulary = Vocabulary(np.arange(1, 51))
    return leave_one_out(Sequences(items, offsets, np.arange(users), vocabulary, "data"))


@pytest.mark.parametrize(
    ("users", "length", "window", "batch", "patience"),
    [(100, 10, 20, 256, 8), (20_000, 8, 20, 512, 8), (2_000, 203, 50, 1024, 4)],
)
def test_more_data_get_more(
    users: int, length: int, window: int, batch: int, patience: int
) -> None:
    fitted = fit_to_data(TrainConfig.from_dict(OPEN), dataset_of(users, length))
    options = fitted.config.to_dict()
    assert options["model"]["max_length"] == window
    assert options["optimizer"]["batch_size"] == batch
    assert options["trainer"]["patience"] == patience
    (note,) = fitted.notes
    for said in (
        f"--model.max_length {window}",
        f"--optimizer.batch_size {batch}",
        f"--trainer.patience {patience}",
    ):
        assert said in note


@pytest.mark.parametrize(("length", "alpha"), [(22, 0.1), (23, 0.0)])
def test_long_histories_are_not_aligned(length: int, alpha: float) -> None:
    asked = {"objective": {"align_short_only": True}}
    fitted = fit_to_data(TrainConfig.from_dict(asked), dataset_of(100, length))
    assert fitted.config.objective.alpha == alpha
    assert fitted.config.objective.gamma == alpha * 5
    assert fitted.config.left_to_data() == []
    said = "".join(fitted.notes)
    assert ("--objective.alpha 0.0" in said) == (alpha == 0)


@pytest.mark.parametrize(("window", "overlap"), [(0, 5), (20, 5), (4, 2), (1, 0)])
def test_the_overlap_fits_the_window(window: int, overlap: int) -> None:
    asked = {"model": {"max_length": window}, "sampling": {"overlap": -1, "samples": "auto"}}
    sampling = fit_to_data(TrainConfig.from_dict(asked), dataset_of(100, 10)).config.sampling
    assert (sampling.overlap, sampling.samples) == (overlap, "users")


def test_models_that_mix_windows_are_trained_on_prefixes() -> None:
    asked = {"model": {"core": "filter"}, "sampling": {"samples": "auto"}}
    assert fit_to_data(
        TrainConfig.from_dict(asked), dataset_of(100, 10)
    ).config.sampling == SamplingOptions(samples="prefixes")


def test_what_is_given_stays() -> None:
    given = {**OPEN, "optimizer": {"batch_size": 77}}
    fitted = fit_to_data(TrainConfig.from_dict(given), dataset_of(100, 10))
    assert fitted.config.optimizer.batch_size == 77
    assert "batch_size" not in fitted.notes[0]
    config = TrainConfig.from_dict({})
    assert fit_to_data(config, dataset_of(100, 10)) == (config, ())


def test_the_default_recipe_leaves_them_to_the_data_and_published_does_not() -> None:
    quick, _ = parse(["data.csv"])
    assert {"model.max_length", "optimizer.batch_size", "trainer.patience"} < set(
        quick.left_to_data()
    )
    published, _ = parse(["data.csv", "--recipe", "published"])
    assert published.left_to_data() == []
    assert published.to_dict() == TrainConfig.from_dict({"data": {"path": "data.csv"}}).to_dict()
    flag, _ = parse(["data.csv", "--trainer.patience", "3"])
    assert "trainer.patience" not in flag.left_to_data()


def test_a_file_of_options_lies_over_the_default_recipe(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("optimizer: {lr: 0.5}\n")
    config, _ = parse(["data.csv", "--config", str(file)])
    default, _ = parse(["data.csv", "--recipe", DEFAULT_RECIPE])
    assert config.optimizer.lr == 0.5
    assert config.sampling == default.sampling
    assert config.left_to_data() == default.left_to_data()


def test_a_run_says_what_was_fitted_and_goes_on_with_it(
    interactions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(interactions, **OPEN)
    run = tmp_path / "run"
    train(config, run, progress=False)
    assert "taken --model.max_length 20" in capsys.readouterr().out
    stored = read_config(run / "config.yaml")
    assert stored == fit_to_data(config, load_dataset(interactions)).config
    assert LaresModel.from_pretrained(run / "best").config.max_length == 20
    # What was asked for, and what came of it, both go on; another does not.
    train(config, run, resume=True, progress=False)
    assert "taken --" not in capsys.readouterr().out
    train(stored, run, resume=True, progress=False)
    with pytest.raises(ConfigError, match=r"other options .*batch_size"):
        train(small_config(interactions, trainer=OPEN["trainer"]), run, resume=True)


def test_what_is_not_left_to_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_length is -1"):
        TrainConfig.from_dict({"model": {"max_length": -1}})
    with pytest.raises(ConfigError, match="max_length is False"):
        TrainConfig.from_dict({"model": {"max_length": False}})
    with pytest.raises(ConfigError, match="trainer.patience is 0, which 'lares train'"):
        PosttrainConfig.from_dict({"trainer": {"patience": 0}})
    with pytest.raises(ConfigError, match="batch_size is 0; it must be a whole number in 1"):
        PosttrainConfig.from_dict({"optimizer": {"batch_size": 0}})
