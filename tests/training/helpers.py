"""Small runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lares.training.config import PosttrainConfig, TrainConfig, merge_options


def small_config(path: Path, /, **sections: dict[str, Any]) -> TrainConfig:
    """Two epochs of a few steps of a tiny model."""
    base = {
        "data": {"path": str(path)},
        "model": {
            "d_model": 16,
            "d_ff": 16,
            "max_length": 8,
            "n_pre_layers": 1,
            "n_core_layers": 1,
        },
        "optimizer": {"batch_size": 64, "lr": 0.01},
        "trainer": {
            "max_epochs": 2,
            "test_depths": [1, 4],
            "tensorboard": False,
            "num_threads": 1,
            "accelerator": "cpu",
        },
    }
    return TrainConfig.from_dict(merge_options(base, sections))


def small_posttrain_config(
    path: Path, start: Path, /, **sections: dict[str, Any]
) -> PosttrainConfig:
    """Two epochs of a few steps from the model in ``start``."""
    base = small_config(path).to_dict()
    base = {name: base[name] for name in ("data", "optimizer", "trainer")}
    base["start"] = {"checkpoint": str(start)}
    return PosttrainConfig.from_dict(merge_options(base, sections))
