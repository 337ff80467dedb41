"""Finding a trained model in a folder, and data in the rows that it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lares.data.dataset import Dataset
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from lares.model.folders import ITEMS_FILE
from lares.model.model import LaresModel
from lares.names import shown
from lares.training.config import DataOptions
from lares.training.run_folder import find_model


class TrainedModel(NamedTuple):
    """A model; the raw ids of its rows and the data options it was trained with, where it has them."""

    model: LaresModel
    vocabulary: Vocabulary | None
    data: DataOptions | None

    def same_rows(self, dataset: Dataset) -> Dataset:
        """``dataset`` with its items in the rows that the model has for them.

        Raises:
            DataError: they cannot be matched.
        """
        if self.vocabulary is not None:
            unknown = self._unknown(dataset)
            if unknown:
                others = f" and {len(unknown) - 1} others are" if len(unknown) > 1 else " is"
                raise DataError(
                    f"{dataset.name}: item {shown(unknown[0])}{others} unknown to this catalogue of "
                    f"{len(self.vocabulary)} items"
                )
            return dataset.with_vocabulary(self.vocabulary)
        if dataset.vocabulary.n_items != self.model.config.n_items:
            raise DataError(
                f"{dataset.name} has {dataset.vocabulary.n_items - 1} items, the model knows "
                f"{self.model.config.n_items - 1}, and no {ITEMS_FILE} lies beside it to match them"
            )
        return dataset

    def known_samples(self, dataset: Dataset) -> tuple[Dataset, int]:
        """Do as :meth:`same_rows` without samples with unknown items; also return how many are unknown.

        Raises:
            DataError: no item is known, or the model does not know its items' ids.
        """
        vocabulary = self.vocabulary
        unknown = self._unknown(dataset)
        if vocabulary is None or not unknown:
            return self.same_rows(dataset), 0
        if len(unknown) == len(dataset.vocabulary):
            raise DataError(
                f"not one of the {len(unknown)} items of {dataset.name} is among the "
                f"{len(vocabulary)} that the model knows"
            )
        rows = np.zeros(dataset.vocabulary.n_items, dtype=np.int32)
        rows[1:] = vocabulary.find(dataset.vocabulary.ids.tolist())
        train, valid, test = (
            _known(replace(split, items=rows[split.items]))
            for split in (dataset.train, dataset.valid, dataset.test)
        )
        known = replace(
            dataset, vocabulary=vocabulary, train=train, valid=valid, test=test, sequences=None
        )
        return known, len(unknown)

    def _unknown(self, dataset: Dataset) -> list[Any]:
        """Return raw ids of the items that the model does not know, though it knows ids."""
        if self.vocabulary is None or dataset.vocabulary.equals(self.vocabulary):
            return []
        ids = dataset.vocabulary.ids.tolist()
        rows = self.vocabulary.find(ids).tolist()
        return [item for item, row in zip(ids, rows, strict=True) if row == 0]


def _known(split: Split) -> Split:
    """Return the samples that have no unknown item, row 0, in history or target."""
    before = np.concatenate(([0], np.cumsum(split.items == 0)))
    kept = before[split.ends + 1] == before[split.starts]
    return Split(split.items, split.starts[kept], split.ends[kept])


def load_trained(path: str | Path) -> TrainedModel:
    """The model of a run folder (its best) or of a folder that ``save_pretrained`` wrote.

    Raises:
        CheckpointError: the folder holds neither.
    """
    _, data = find_model(path)
    model = LaresModel.from_pretrained(path)
    return TrainedModel(model, model.vocabulary, data)
