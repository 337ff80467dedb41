"""Hold a run against its baselines, with a user's history ranked and with it removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lares.data.dataset import Dataset
from lares.evaluation.popularity import evaluate_popularity
from lares.evaluation.ranking import metrics_from_ranks
from lares.model.model import LaresModel
from lares.training.engine import all_do, first_does
from lares.training.result import RANKINGS, Metrics, Rows, TrainResult
from lares.training.trainer import Trainer

# The row of a model without recurrence in its own result.
_WITHOUT_RECURRENCE = "depth 0"


def popularity_rows(dataset: Dataset) -> dict[str, Rows]:
    """Return what popularity comes to on the test samples: by ranking a row ``popularity``."""
    return {
        ranking: {"popularity": evaluate_popularity(dataset, dataset.test, remove_history=removed)}
        for removed, ranking in RANKINGS.items()
    }


def model_rows(result: TrainResult, name: str) -> dict[str, Rows]:
    """Return by ranking a row ``name`` of a run of a model without recurrence that has baselines."""
    return {ranking: {name: rows[_WITHOUT_RECURRENCE]} for ranking, rows in result.compared.items()}


def compare(
    trainer: Trainer, result: TrainResult, others: Mapping[str, TrainResult]
) -> TrainResult:
    """Return a run's result with both rankings of baselines and models, and write it.

    Args:
        trainer: of the run, which is finished.
        result: what it came to, with one of the rankings.
        others: what runs of baselines came to, by name.
    """
    of_baselines = [model_rows(other, name) for name, other in others.items()]
    if "popularity" in trainer.config.trainer.baselines:
        of_baselines.insert(0, popularity_rows(trainer.dataset))
    best = all_do(trainer.fabric, lambda: LaresModel.from_pretrained(trainer.folder.best))
    trainer.model.load_state_dict(best.state_dict())  # in the precision of the run
    compared: dict[str, Rows] = {}
    for removed, ranking in RANKINGS.items():
        rows = compared[ranking] = {
            name: metrics for each in of_baselines for name, metrics in each[ranking].items()
        }
        before = "before, " if trainer.start is not None else ""
        if trainer.start is not None:
            rows |= _by_depth(trainer, trainer.start, result.start, removed, before)
        rows |= _by_depth(trainer, trainer.model, result.test, removed, "after, " if before else "")
    whole = dataclasses.replace(
        result,
        compared=compared,
        curves=trainer.folder.curves.name,
        next=trainer.folder.next_command(),
    )
    first_does(trainer.fabric, lambda: whole.save(trainer.folder.result))
    return whole


def _by_depth(
    trainer: Trainer, model: LaresModel, known: Metrics, removed: bool, named: str
) -> Rows:
    """Return a model's metrics by depth, as they are known in the run's own ranking.

    Args:
        trainer: of the run.
        model: to test.
        known: its metrics in that ranking.
        removed: whether the history is left out.
        named: before the depth, in a row's name.
    """
    options = trainer.config.trainer
    metrics = known
    if removed != options.remove_history:
        ranks = trainer.ranks(
            model, trainer.dataset.test, trainer.test_depths, options.test_states, removed
        )
        metrics = {depth: metrics_from_ranks(of_depth) for depth, of_depth in ranks.items()}
    return {f"{named}depth {depth}": of_depth for depth, of_depth in metrics.items()}
