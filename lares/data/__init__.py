"""Interaction data: readers, leave-one-out samples, batches, partners, downloads."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lares.data.batches import collate, epoch_order
    from lares.data.dataset import Dataset, Sequences, Split, leave_one_out
    from lares.data.partners import PartnerIndex
    from lares.data.readers import load_dataset
    from lares.data.vocabulary import Vocabulary

__all__ = [
    "Dataset",
    "PartnerIndex",
    "Sequences",
    "Split",
    "Vocabulary",
    "collate",
    "epoch_order",
    "leave_one_out",
    "load_dataset",
]

# Loaded on first use: printing help must wait neither for numpy nor for pyarrow.
_HOMES = {
    "Dataset": "dataset",
    "PartnerIndex": "partners",
    "Sequences": "dataset",
    "Split": "dataset",
    "Vocabulary": "vocabulary",
    "collate": "batches",
    "epoch_order": "batches",
    "leave_one_out": "dataset",
    "load_dataset": "readers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
