"""Finding a trained model in a folder, and data in the rows that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lares.data.dataset import Dataset
from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, DataError
from lares.model import LaresModel
from lares.training.config import DataOptions
from lares.training.run_folder import ITEMS_FILE, find_model


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
            return dataset.with_vocabulary(self.vocabulary)
        if dataset.vocabulary.n_items != self.model.config.n_items:
            raise DataError(
                f"{dataset.name} has {dataset.vocabulary.n_items - 1} items, the model knows "
                f"{self.model.config.n_items - 1}, and no {ITEMS_FILE} lies beside it to match them"
            )
        return dataset


def load_trained(path: str | Path) -> TrainedModel:
    """The model of a run folder (its best) or of a folder that ``save_pretrained`` wrote.

    Raises:
        CheckpointError: the folder holds neither.
    """
    folder, data = find_model(path)
    items = folder / ITEMS_FILE
    vocabulary = Vocabulary.load(items) if items.is_file() else None
    model = LaresModel.from_pretrained(folder)
    if vocabulary is not None and vocabulary.n_items != model.config.n_items:
        raise CheckpointError(
            f"{items} lists {len(vocabulary)} items, but the model beside it knows "
            f"{model.config.n_items - 1}"
        )
    return TrainedModel(model, vocabulary, data)
