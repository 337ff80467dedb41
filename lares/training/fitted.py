"""Options that fit the data's size, each where its value leaves it to the data.

The rules are few and coarse; docs/results/quick.md says which of them were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lares.model.config import LaresConfig
from lares.training.config import TrainConfig

if TYPE_CHECKING:
    from lares.data.dataset import Dataset

_LONG = 20  # training samples a user on average
_WINDOW = {"short": 20, "long": 50}  # items
_OVERLAP = 5  # items of context
_STEPS = 250  # of an epoch, about: few epochs are then enough steps to learn from
_BATCHES = (256, 512, 1024)
_MANY = 300_000  # training samples: an epoch of so many is worth several of a small set
_PATIENCE = {"few": 8, "many": 4}  # evaluations


class Fitted(NamedTuple):
    """Options with nothing left open, and notes that say what was fitted."""

    config: TrainConfig
    notes: tuple[str, ...]


def fit_to_data(config: TrainConfig, dataset: Dataset) -> Fitted:
    """Return the options of a run, with values for those that it leaves to the data's size.

    Args:
        config: as asked for; ``lares.training.config.FITTED`` says which values leave an option open.
        dataset: whose training samples and users are counted.

    Raises:
        ConfigError: a value that fits the data does not fit the others, such as a batch too small for
            ``trainer.devices``.
    """
    left = config.left_to_data()
    if not left:
        return Fitted(config, ())
    samples = len(dataset.train)
    per_user = samples / max(dataset.n_users, 1)
    length = "long" if per_user >= _LONG else "short"
    objective = config.objective
    stands_alone = config.model_config(2).prefixes_stand_alone
    window = config.model.get("max_length", LaresConfig.max_length) or _WINDOW[length]
    found: dict[str, Any] = {
        "sampling.overlap": min(_OVERLAP, window // 2),
        "sampling.samples": "users" if stands_alone else "prefixes",
        "model.max_length": _WINDOW[length],
        "optimizer.batch_size": next(
            (size for size in _BATCHES if size * _STEPS >= samples), _BATCHES[-1]
        ),
        "trainer.patience": _PATIENCE["many" if samples >= _MANY else "few"],
        "objective.align_short_only": False,
        "objective.alpha": objective.alpha if length == "short" else 0.0,
        "objective.gamma": objective.gamma if length == "short" else 0.0,
    }
    asked = config.to_dict()
    taken = [
        f"--{name} {found[name]}"
        for name in left
        if name != "objective.align_short_only"
        and found[name] != value_of(asked, name)
        and not (name == "sampling.overlap" and found["sampling.samples"] == "prefixes")
    ]
    note = f"note: {samples:,} training samples, {per_user:.1f} a user: taken {', '.join(taken)}"
    return Fitted(config.decided(found), (note,) if taken else ())


def value_of(options: Mapping[str, Any], name: str) -> Any:
    """Return the option ``section.option`` of nested options."""
    section, option = name.split(".")
    return options[section][option]
