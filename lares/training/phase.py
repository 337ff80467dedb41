"""A phase: one way to learn, which the loop of ``trainer.py`` goes through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lares.data.split import Split
from lares.model.model import LaresModel


class Phase(ABC):
    """Define what the loop asks of a phase.

    Attributes:
        losses: names of what an update gives; the first is minimised, the others are logged.
        curves: labels of the columns of ``metrics.csv`` that are drawn, by name; ``loss`` is the first
            loss.
        model: that learns.
        objective: module around the model; the engine wraps it.
        samples: to learn from.
        sizes: (U,) samples in each unit that an epoch shuffles, and that ``make`` is given by number.
        start: frozen model that ``model`` began as and must beat; None if it began from nothing.
    """

    losses: ClassVar[tuple[str, ...]]
    curves: ClassVar[Mapping[str, str]]
    model: LaresModel
    objective: nn.Module
    samples: Split
    sizes: NDArray[np.int64]
    start: LaresModel | None

    @abstractmethod
    def make(self, indices: NDArray[np.int64], step: int) -> Any:
        """Batch and random draws of a step: a function of the run's seed, ``step`` and the units
        ``indices`` (B,) of all processes alone."""

    @abstractmethod
    def updates(self, objective: nn.Module, made: Any) -> Iterator[tuple[Tensor, ...]]:
        """Losses of each update of a step, the next computed once the one before was applied.

        Args:
            objective: wrapped by the engine.
            made: by :meth:`make`.
        """
