"""Options from files: numbers as they are written, several files one over the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from lares.cli.train import parse
from lares.errors import ConfigError
from lares.training.config import TrainConfig, read_config, read_run_options, read_yaml
from tests.training.helpers import small_config

NUMBERS = {
    "1e-3": 1e-3,
    "1E-3": 1e-3,
    "1.e-3": 1e-3,
    "1.5e-3": 1.5e-3,
    ".5e-2": 5e-3,
    "+2e-4": 2e-4,
    "1e+0": 1.0,
    "1e0": 1.0,
    "0.001": 1e-3,
    "1": 1,
}


@pytest.mark.parametrize("written", NUMBERS)
def test_numbers_of_yaml(tmp_path: Path, written: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"optimizer: {{lr: {written}, weight_decay: {written}}}\n")
    found = read_yaml(file)["optimizer"]
    assert found == {"lr": NUMBERS[written], "weight_decay": NUMBERS[written]}
    config, _ = parse(["data.csv", f"--config={file}"])
    assert config.optimizer.lr == NUMBERS[written]
    assert config.optimizer.weight_decay == NUMBERS[written]


@pytest.mark.parametrize("written", ["e3", "1e", "1e-", "1e3x", "a1e3", "'1e-3'", "-e3", "."])
def test_what_is_no_number_is_refused(tmp_path: Path, written: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"optimizer: {{lr: {written}}}\n")
    with pytest.raises(ConfigError, match=r"optimizer\.lr is '.*'; it must be a number"):
        TrainConfig.from_dict(read_yaml(file))


@pytest.mark.parametrize("value", ["many", True, [], float("inf"), float("nan"), -1.0])
def test_bad_values(value: object) -> None:
    for option in ("lr", "weight_decay"):
        with pytest.raises(ConfigError, match=f"optimizer.{option} is "):
            TrainConfig.from_dict({"optimizer": {option: value}})


def test_a_later_file_overrides(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("optimizer: {lr: 1e-2, batch_size: 32}\nmodel: {d_ff: 32}\n")
    second.write_text("optimizer: {lr: 1e-4}\ntrainer: {patience: 3}\n")
    config, _ = parse(["x.csv", f"--config={first}", f"--config={second}", "--trainer.patience=4"])
    assert (config.optimizer.lr, config.optimizer.batch_size) == (1e-4, 32)
    assert config.model["d_ff"] == 32
    assert config.trainer.patience == 4
    turned, _ = parse(["x.csv", "--config", str(second), "--config", str(first)])
    assert turned.optimizer.lr == 1e-2


def test_runs_from_before_test_as_they_did(interactions: Path, tmp_path: Path) -> None:
    options = small_config(interactions).to_dict()
    assert options["trainer"].pop("test_states") == "shared"
    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    assert read_run_options(tmp_path / "config.yaml")["trainer"]["test_states"] == "drawn"
    assert read_config(tmp_path / "config.yaml").trainer.test_states == "drawn"


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read"):
        read_yaml(tmp_path / "c.yaml")
