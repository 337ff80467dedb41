"""Hold how accurate a run's best model is by depth, by popularity and by history length, and keep it in
``breakdown.json`` of the run's folder.

Without torch: plots of what is kept need not wait for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

from lares.errors import CheckpointError
from lares.files import read_json, write_json
from lares.model.folders import WEIGHTS_FILE
from lares_kernels.common.one_number import real_number

K = 10  # cut-off of its metrics
METRICS = (f"ndcg@{K}", f"recall@{K}")
Row = dict[str, float]
# What tells a row of each table from the others.
_PLACES = {
    "by_depth": ("depth",),
    "by_popularity": ("tenth", "least_met", "most_met"),
    "by_length": ("shortest", "longest"),
}


@dataclass(frozen=True)
class Breakdown:
    """Hold a model's metrics on the test samples. A row of each table has ``samples`` and, of each of
    ``METRICS``, the mean and its standard error (``ndcg@10``, ``ndcg@10_error``).

    Attributes:
        weights: digest of the model's weights.
        states: initial states that the samples start from; remove_history: whether their history is
            left out of the ranking.
        depth: reasoning depth of ``by_popularity`` and ``by_length``.
        by_depth: rows by ``depth``.
        by_popularity: rows by ``tenth``, 1 of the rarest targets, which training meets ``least_met`` to
            ``most_met`` times.
        by_length: rows by the length of the history, ``shortest`` to ``longest``.
    """

    weights: str
    states: str
    remove_history: bool
    depth: int
    by_depth: list[Row]
    by_popularity: list[Row]
    by_length: list[Row]

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            CheckpointError: it could not be written.
        """
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> Breakdown | None:
        """Return what a file holds; None if it holds none that can be read."""
        try:
            found = cls(**read_json(path))
            for table, places in _PLACES.items():
                for row in getattr(found, table):
                    for name in (*places, "samples", *_columns()):
                        real_number(name, row[name])
            depths = [row["depth"] for row in found.by_depth]
            return found if found.depth in depths else None
        except (CheckpointError, KeyError, TypeError):
            return None

    def answers(self, weights: str, states: str, remove_history: bool) -> bool:
        """Return whether it is of a model, ranked in this way."""
        asked = (weights, states, remove_history)
        return (self.weights, self.states, self.remove_history) == asked


def _columns() -> list[str]:
    return [name for metric in METRICS for name in (metric, f"{metric}_error")]


def weights_digest(folder: Path) -> str:
    """Return a hash of the file of weights in a model's folder, in hexadecimal digits.

    Raises:
        CheckpointError: there is none that can be read.
    """
    path = folder / WEIGHTS_FILE
    try:
        with open(path, "rb") as file:
            hasher = hashlib.blake2b(digest_size=16)
            while part := file.read(1 << 20):
                hasher.update(part)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return hasher.hexdigest()
