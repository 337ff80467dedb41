"""Files of items' text features.

Such a file is either ``.npy`` with a row for every catalogue row, row 0 being padding's, or
``.safetensors`` with a tensor ``features`` and the raw item id of each of its rows, as
``lares data embed`` writes it: then rows are found by id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lares.data.arrays import read_array
from lares.errors import DataError

FEATURES, ITEMS = "features", "items"  # tensor and metadata of a safetensors file


def write_text_features(
    path: Path, features: Tensor, items: Sequence[str], origin: dict[str, str]
) -> None:
    """Write features (n, D) with the raw ids of their rows, whole or not at all."""
    from lares.tensor_files import write_tensors  # needs safetensors, which a model alone does not

    if len(set(items)) != len(items):
        raise DataError("an item has two rows of text features")
    write_tensors(path, {FEATURES: features.float()}, {ITEMS: json.dumps([*items]), **origin})


def read_text_features(
    path: str | Path, n_items: int, items: Sequence[object] | None = None
) -> Tensor:
    """Features (V, D) in float32 from a file.

    Args:
        path: ``.npy`` or ``.safetensors``.
        n_items: catalogue rows ``V``, padding row included.
        items: raw ids of catalogue rows 1 and up, where they are known.

    Raises:
        DataError: the file cannot be read, or its rows cannot be matched with the catalogue's.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path} of text features")
    if path.suffix == ".npy":
        with np.errstate(over="ignore"):  # told below
            features = torch.from_numpy(read_array(path).astype(np.float32))
    elif path.suffix == ".safetensors":
        features = _read_named(path, items)
    else:
        raise DataError(f"{path} must be a .npy or a .safetensors file of text features")
    if features.dim() != 2 or len(features) != n_items or features.shape[1] == 0:
        raise DataError(
            f"{path} has shape {tuple(features.shape)}; text features must be ({n_items}, D): a row "
            f"for each of {n_items - 1} items in catalogue order, after row 0 for padding"
        )
    if not bool(torch.isfinite(features).all()):
        raise DataError(f"{path} holds NaN or infinity")
    return features


def _read_named(path: Path, items: Sequence[object] | None) -> Tensor:
    """Rows of a safetensors file in catalogue order, after a zero row for padding."""
    from lares.tensor_files import read_tensors

    tensors, metadata = read_tensors(path)
    if FEATURES not in tensors or ITEMS not in metadata:
        raise DataError(
            f"{path} has no tensor {FEATURES!r} with {ITEMS!r} in its metadata: the raw ids of its "
            "rows, a JSON list; 'lares data embed' writes such files"
        )
    if items is None:
        raise DataError(
            f"{path} names its rows by raw item ids, which a model without data does not know; give "
            "read_text_features the ids, and LaresModel what it returns"
        )
    features = tensors[FEATURES].float()
    try:
        names = json.loads(metadata[ITEMS])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} has {ITEMS!r} that are no JSON list: {error}") from error
    place = {str(name): row for row, name in enumerate(names if isinstance(names, list) else [])}
    if features.dim() != 2 or len(place) != len(features):
        raise DataError(
            f"{path} has features of shape {tuple(features.shape)} and {len(place)} item ids; they "
            "must be a row for each id"
        )
    missing = [str(item) for item in items if str(item) not in place]
    if missing:
        raise DataError(
            f"{path} has no text features for {len(missing)} of {len(items)} items, among them "
            f"{', '.join(missing[:3])}"
        )
    rows = torch.tensor([place[str(item)] for item in items])
    return torch.cat((features.new_zeros(1, features.shape[1]), features[rows]))
