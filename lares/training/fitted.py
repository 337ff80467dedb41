"""Options that fit the data's size: window, batch and patience, each where it is 0.

The rules were measured (docs/results/quick.md); they are few and coarse, because what is best is flat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lares.training.config import TrainConfig

if TYPE_CHECKING:
    from lares.data.dataset import Dataset

_WINDOWS = (20, 50)  # items; longer ones cost more than they bring in minutes
_LONG = 20  # training targets a user on average: histories for which the longer window pays
_STEPS = 250  # of an epoch, about, so that a few epochs are enough steps to learn from
_BATCHES = (128, 256, 512, 1024)
_MANY = 300_000  # training targets: an epoch of so many is worth several of a small set
_PATIENCE = {"few": 10, "many": 5}


class Fitted(NamedTuple):
    """Options with nothing left open, and notes that say what was fitted."""

    config: TrainConfig
    notes: tuple[str, ...]


def fit_to_data(config: TrainConfig, dataset: Dataset) -> Fitted:
    """Return the options of a run on ``dataset``, those that are 0 to be fitted by its size."""
    open_options = config.left_to_data()
    if not open_options:
        return Fitted(config, ())
    targets = len(dataset.train)
    per_user = targets / max(dataset.n_users, 1)
    found: dict[str, tuple[int, str]] = {
        "model.max_length": (
            _WINDOWS[per_user >= _LONG],
            f"{per_user:.1f} training items a user",
        ),
        "optimizer.batch_size": (
            next((size for size in _BATCHES if size * _STEPS >= targets), _BATCHES[-1]),
            f"{targets:,} training samples",
        ),
        "trainer.patience": (
            _PATIENCE["many" if targets >= _MANY else "few"],
            f"{targets:,} training samples",
        ),
    }
    said = ", ".join(f"{name} {found[name][0]} ({found[name][1]})" for name in open_options)
    config = config.decided({name: value for name, (value, _) in found.items()})
    return Fitted(config, (f"note: fitted to the data: {said}",))
