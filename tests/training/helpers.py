"""Small runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from lares.training.config import PosttrainConfig, RunConfig, TrainConfig, merge_options
from lares.training.interrupts import Interrupted
from lares.training.trainer import Trainer

# Of every run's folder.
FILES = {
    *("config.yaml", "metrics.csv", "timing.csv", "curves.png", "result.json"),
    *("checkpoints/last.safetensors", "best/model.safetensors", "best/items.json"),
}


# Two epochs of a few steps of a tiny model.
SMALL: dict[str, dict[str, Any]] = {
    "model": {"d_model": 16, "d_ff": 16, "max_length": 8, "n_pre_layers": 1, "n_core_layers": 1},
    "optimizer": {"batch_size": 64, "lr": 0.01},
    "trainer": {
        "max_epochs": 2,
        "test_depths": [1, 4],
        "tensorboard": False,
        "num_threads": 1,
        "accelerator": "cpu",
    },
}


def small_config(path: Path, /, **sections: dict[str, Any]) -> TrainConfig:
    """Return ``SMALL`` on data at ``path``, but for ``sections``."""
    base = {"data": {"path": str(path)}, **SMALL}
    return TrainConfig.from_dict(merge_options(base, sections))


def small_posttrain_config(
    path: Path, start: Path, /, **sections: dict[str, Any]
) -> PosttrainConfig:
    """Two epochs of a few steps from the model in ``start``."""
    base = small_config(path).to_dict()
    base = {name: base[name] for name in ("data", "optimizer", "trainer")}
    base["start"] = {"checkpoint": str(start)}
    return PosttrainConfig.from_dict(merge_options(base, sections))


def files_in(folder: Path) -> set[str]:
    """Everything in a folder, by its path from there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def stopped_after_every_step(
    run: Callable[..., Any],
    config: RunConfig,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_each_stop: Callable[[Interrupted], Any],
) -> int:
    """Run to the end, stopped after each step and resumed; how often it was started."""
    step, starts = Trainer._step, 0

    def stops(self, indices):
        found = step(self, indices)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(Trainer, "_step", stops)
    while True:
        starts += 1
        try:
            run(config, folder, resume=starts > 1, progress=False)
            return starts
        except Interrupted as error:
            at_each_stop(error)


def by_the_command(command: str, config: RunConfig, folder: Path) -> str:
    """What the command prints that runs a configuration, from a process of its own."""
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config.to_dict()))
    words = [sys.executable, "-m", "lares", command, "--config", str(file), "--out", str(folder)]
    done = subprocess.run(
        [*words, "--no_progress"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def assert_same_weights(folder: Path, other: Path) -> None:
    """The last models of two runs are the same but for rounding.

    Adam divides by the gradient's own size: where a gradient is all but zero (a key's bias) rounding is
    all there is to see.
    """
    weights, others = (
        load_file(run / "checkpoints" / "last.safetensors") for run in (folder, other)
    )
    for name, tensor in weights.items():
        if name.startswith("model."):
            assert (others[name] - tensor).abs().max() < 1e-6, name
