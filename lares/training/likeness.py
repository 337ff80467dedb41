"""Which recipe a run's options are most like, and in what they differ from it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from lares.training.config import (
    RECIPES_FOLDER,
    DataOptions,
    PosttrainConfig,
    RunConfig,
    StartOptions,
    TrainConfig,
    differing_options,
    recipes,
)
from lares.training.options_file import read_yaml

# Options of the loop that no number of a finished run hangs on, but for when it ends.
_OF_THE_LOOP = (
    *("max_epochs", "patience", "valid_every", "accelerator", "devices", "num_threads"),
    *("eval_batch_size", "test_depths", "test_states", "checkpoint_every_steps", "log_every"),
    *("tensorboard", "baselines"),
)

# Options that are chosen for data, whatever the recipe.
_TUNED = (
    *("model.d_model", "model.d_ff", "model.n_heads", "model.max_length", "model.n_pre_layers"),
    *("model.dropout", "model.attn_dropout", "model.text_features"),
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.batch_size", "trainer.seed"),
)


class Likeness(NamedTuple):
    """Hold the recipe that options are most like, and those that differ from it, by ``section.option``;
    of post-training, which has no recipes, the recipe is empty and options differ from the defaults."""

    recipe: str
    differs: dict[str, Any]


def likeness(config: RunConfig) -> Likeness:
    """Return what a run's options are like, those aside that say where data lie and how long it may
    train."""
    options = _compared(config)
    if isinstance(config, PosttrainConfig):
        start = StartOptions(checkpoint=config.start.checkpoint)
        plain = PosttrainConfig(data=DataOptions(), start=start)
        return Likeness("", _differing(_compared(plain), options))
    every = {name: _differing(_compared(_recipe(name)), options) for name in _recipes()}
    nearest = min(every, key=lambda name: _distance(every[name]))
    left = _recipe(nearest).left_to_data()
    differs = {name: value for name, value in every[nearest].items() if name not in left}
    return Likeness(nearest, differs)


def _distance(differing: Mapping[str, Any]) -> tuple[int, int]:
    """Return how far options are from a recipe: what makes a recipe counts first, then all."""
    return len(set(differing) - set(_TUNED)), len(differing)


def _recipes() -> list[str]:
    """Return the names of the recipes, of several that are as near the first to be named."""
    return sorted(recipes(), key=lambda name: (name != "published", name))


@functools.cache
def _recipe(name: str) -> TrainConfig:
    return TrainConfig.from_dict(read_yaml(RECIPES_FOLDER / f"{name}.yaml"))


def _compared(config: RunConfig) -> dict[str, Any]:
    options = config.to_dict()
    del options["data"]
    options["trainer"] = {
        name: value for name, value in options["trainer"].items() if name not in _OF_THE_LOOP
    }
    if "model" in options:
        del options["model"]["text_width"]  # follows from the file
    return options


def _differing(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    differing = {}
    for name in differing_options(base, options):
        section, _, option = name.partition(".")
        differing[name] = options[section][option]
    return differing
