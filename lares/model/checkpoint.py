"""Saved models: a folder with ``config.json``, ``model.safetensors`` and ``items.json``; no pickle.

The metadata of ``model.safetensors`` also say which items its rows are, and the model's seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, DataError
from lares.files import not_written, write_json
from lares.model.config import CONFIG_FILE, MOST_SEED, LaresConfig
from lares.model.folders import ITEMS_FILE, WEIGHTS_FILE, read_model_config
from lares.names import shown
from lares.plain import whole
from lares.tensor_files import read_tensors, refuse_non_finite, write_tensors

_KINDS_OF_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ITEMS = "lares_items"  # of a model: which items it was saved with
_NO_ITEMS = "none"  # none, or the model is older than this mark
_SEED = "lares_seed"  # of a model, unless it is older than this mark


class SavedModel(NamedTuple):
    """Configuration and weights of a model; its items by row, and its seed, None where it has none."""

    config: LaresConfig
    weights: dict[str, Tensor]
    vocabulary: Vocabulary | None
    seed: int | None


def save_model(
    weights: Mapping[str, Tensor],
    config: LaresConfig,
    folder: Path,
    vocabulary: Vocabulary | None,
    seed: int,
) -> None:
    """Write a model into ``folder``, each file whole or not at all; the configuration is the last.

    Raises:
        CheckpointError: a weight is not finite, or a file could not be written.
        ConfigError: the seed is none of 64 bits.
    """
    seed = whole("seed", seed, 0, MOST_SEED)
    marks = {"format": "pt", _ITEMS: _mark_of(vocabulary), _SEED: str(seed)}
    write_tensors(folder / WEIGHTS_FILE, weights, marks)
    items = folder / ITEMS_FILE
    try:
        if vocabulary is None:
            items.unlink(missing_ok=True)  # of the model that this one replaces
        else:
            vocabulary.save(items)
    except OSError as error:
        raise not_written(items, error) from error
    write_json(folder / CONFIG_FILE, config.to_dict())


def load_model(
    folder: Path, vocabulary: Vocabulary | Literal["saved"] | None = "saved"
) -> SavedModel:
    """Read a saved model.

    Args:
        folder: that :func:`save_model` wrote.
        vocabulary: ``saved`` reads its items; with others, or None, the file of items may be missing.

    Raises:
        CheckpointError: a file is missing, broken, or does not fit the others; or ``vocabulary`` is not
            what the model was saved with.
    """
    config = read_model_config(folder)
    weights, metadata = read_tensors(folder / WEIGHTS_FILE)
    for name, tensor in weights.items():
        if tensor.dtype not in _KINDS_OF_WEIGHTS:
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: tensor {name!r} is {tensor.dtype}; weights are real numbers "
                "of 16, 32 or 64 bits; save the model again"
            )
    refuse_non_finite(weights, f"the model in {folder / WEIGHTS_FILE} is unusable")
    mark = metadata.get(_ITEMS, _NO_ITEMS)
    if isinstance(vocabulary, str):
        vocabulary = _load_items(folder / ITEMS_FILE, mark)
    if vocabulary is not None:
        _check_items(vocabulary, config, mark, folder)
    return SavedModel(config, weights, vocabulary, _seed_of(metadata, folder / WEIGHTS_FILE))


def _mark_of(vocabulary: Vocabulary | None) -> str:
    """Return what weights say about the items that they are saved with: their number and digest."""
    if vocabulary is None:
        return _NO_ITEMS
    return f"{len(vocabulary)} {vocabulary.digest().hex()}"


def _seed_of(metadata: Mapping[str, str], path: Path) -> int | None:
    if _SEED not in metadata:
        return None
    said = metadata[_SEED]
    if not re.fullmatch("[0-9]{1,20}", said) or int(said) > MOST_SEED:
        raise CheckpointError(
            f"{path}: its seed is {shown(said)}; it must be a whole number of 64 bits; save the model "
            "again"
        )
    return int(said)


def _load_items(path: Path, mark: str) -> Vocabulary | None:
    if not path.is_file():
        if mark == _NO_ITEMS:
            return None
        raise CheckpointError(
            f"{path} is missing: the model was saved with {mark.split()[0]} items, and without them "
            "its rows have no names; copy it from where the model was saved (best/ of its run), or "
            "give LaresModel.from_pretrained the vocabulary, or vocabulary=None to work with rows"
        )
    try:
        return Vocabulary.load(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error


def _check_items(vocabulary: Vocabulary, config: LaresConfig, mark: str, folder: Path) -> None:
    if vocabulary.n_items != config.n_items:
        raise CheckpointError(
            f"{ITEMS_FILE} of {folder} has {len(vocabulary)} items, but the model beside it knows "
            f"{config.n_items - 1}"
        )
    if mark not in (_NO_ITEMS, _mark_of(vocabulary)):
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} was saved with other items than those of {ITEMS_FILE}; copy both "
            "files from the same folder"
        )


def check_weights(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path
) -> None:
    """Raise ``CheckpointError`` unless ``weights`` have the names and shapes of ``expected``."""
    missing = sorted(set(expected) - set(weights))
    unknown = sorted(set(weights) - set(expected))
    if missing or unknown:
        raise CheckpointError(
            f"{path} does not fit its configuration: missing {missing or 'none'}, "
            f"unknown {unknown or 'none'}"
        )
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(weights[name].shape)}; the configuration "
                f"needs {tuple(tensor.shape)}"
            )
