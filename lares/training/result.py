"""Hold what a run came to, and read and write ``result.json``, which says so."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lares.errors import CheckpointError
from lares.evaluation.ranking import DEFAULT_KS
from lares.files import read_json, write_json
from lares_kernels.common.one_number import real_number, whole_number

Metrics = dict[int, dict[str, float]]
Rows = dict[str, dict[str, float]]  # metrics by the name of a model
# Names of the rankings, by whether a user's history is left out.
RANKINGS = {False: "history ranked", True: "history removed"}
_NAMES = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in DEFAULT_KS]


def _metrics(held: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a depth in a file; raise unless all are there and are numbers."""
    metrics = {name: real_number(name, value) for name, value in held.items()}
    for name in _NAMES:
        _ = metrics[name]
    return metrics


def _rankings(held: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Rows]:
    """Return the rows of both rankings in a file, or of none; raise unless they are such."""
    if held and set(held) != set(RANKINGS.values()):
        raise ValueError(f"rankings are {list(held)}")
    return {
        ranking: {row: _metrics(metrics) for row, metrics in rows.items()}
        for ranking, rows in held.items()
    }


@dataclass
class TrainResult:
    """Hold what a run came to.

    Attributes:
        test: metrics by depth of the best model; valid_best: its validation NDCG@10.
        start: as ``test``, of the model that the run began with; empty if it began from nothing.
        best_epoch, epochs: when it was reached (0 is the start), and how many were run.
        seconds: spent training and validating; parts: by part of a step, on the host's clock.
        samples_per_second: trained on, over the steps.
        peak_memory_mib: of this process.
        test_states: initial states that test metrics start from.
        command: line that started it.
        compared: by ranking (``history ranked``, ``history removed``) metrics on the test samples of
            the baselines, the start and the best model, by name and depth; empty where the run has no
            baselines. ``test`` has one of the rankings, that of ``trainer.remove_history``.
        curves: file of the picture in the run's folder; next: a command that goes on from there. Empty
            in results that are older.
    """

    test: Metrics
    start: Metrics
    valid_best: float
    best_epoch: int
    epochs: int
    seconds: float
    parts: dict[str, float]
    samples_per_second: float
    peak_memory_mib: dict[str, float]
    test_states: str = "drawn"  # of results that are older than the choice
    command: str = field(default_factory=lambda: " ".join(["lares", *sys.argv[1:]]))
    compared: dict[str, Rows] = field(default_factory=dict)
    curves: str = ""
    next: str = ""

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all."""
        write_json(path, self.__dict__)

    @classmethod
    def load(cls, path: Path) -> TrainResult | None:
        """Return the result in a file; None if it holds none that can be read."""
        try:
            content = read_json(path)
            for part in ("test", "start"):
                content[part] = {
                    int(depth): _metrics(held) for depth, held in content[part].items()
                }
            content["compared"] = _rankings(content.get("compared", {}))
            result = cls(**content)
            for name in ("valid_best", "seconds", "samples_per_second"):
                real_number(name, getattr(result, name))
            for name in ("best_epoch", "epochs"):
                whole_number(name, getattr(result, name))
            for numbers in (result.parts, result.peak_memory_mib):
                for name, value in numbers.items():
                    real_number(name, value)
        except (CheckpointError, KeyError, TypeError, ValueError, AttributeError):
            return None
        return result

    def has_baselines(self, baselines: Collection[str]) -> bool:
        """Return whether it says of those baselines what they came to."""
        return not baselines or (
            bool(self.compared)
            and all(name in rows for rows in self.compared.values() for name in baselines)
        )

    def answers(self, epochs: int, depths: list[int], test_states: str, has_start: bool) -> bool:
        """Return whether it is of a run of ``epochs``, tested at ``depths`` from ``test_states``, as is
        what the run began with if it ``has_start``."""
        tested = (self.epochs, list(self.test), list(self.start), self.test_states)
        return tested == (epochs, depths, depths if has_start else [], test_states)
