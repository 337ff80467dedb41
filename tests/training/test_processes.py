"""Two processes on the CPU take the steps that one takes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lares.training.spt import train
from tests.training.helpers import assert_same_weights, by_the_command, small_config

TRAINER = {"precision": "64-true", "max_epochs": 2}


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"objective": {"alpha": 0.0, "gamma": 0.0}},
        {"objective": {"mask_same_target": True}, "sampling": {"samples": "users", "aligned": 33}},
    ],
    ids=["spt", "ce", "users"],
)
def test_two_processes_give_the_one_process_result(
    interactions: Path, tmp_path: Path, sections: dict
) -> None:
    # 61 samples a step: the parts are of unequal size.
    sections = {**sections, "optimizer": {"batch_size": 61}}
    one = train(
        small_config(interactions, trainer=TRAINER, **sections), tmp_path / "one", progress=False
    )
    config = small_config(interactions, trainer={**TRAINER, "devices": 2}, **sections)
    said = by_the_command("train", config, tmp_path / "two")
    assert said.count("run folder") == 1  # only the first process speaks
    assert "distributed" not in said  # and no library
    for single, double in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        # The engine hands losses on in float32.
        assert double == pytest.approx(single, rel=2e-7)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert one.valid_best > 0


@pytest.mark.long
def test_torchrun_trains_once_and_goes_on(interactions: Path, tmp_path: Path) -> None:
    """Without ``--trainer.devices``; and one process goes on with what two began."""
    sections = {"optimizer": {"batch_size": 61}}
    train(small_config(interactions, trainer=TRAINER, **sections), tmp_path / "one", progress=False)
    file = tmp_path / "two.yaml"
    first = {**TRAINER, "max_epochs": 1}
    config = small_config(interactions, trainer=first, **sections)
    file.write_text(yaml.safe_dump(config.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "lares", "train", "--config", str(file), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1
    assert "on cpu in 2 processes" in done.stdout
    config = small_config(interactions, trainer=TRAINER, **sections)
    train(config, tmp_path / "two", resume=True, progress=False)
    for single, double in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert double == pytest.approx(single, rel=2e-7)
    # A mistake is told once, and nobody waits for the other.
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert done.stderr.count("holds a run already") == 1
    assert json.loads((tmp_path / "two" / "result.json").read_text())["epochs"] == 2
