"""Interaction data: readers, leave-one-out samples, batches, partners, downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lares.data.batches import collate, epoch_order
from lares.data.dataset import Dataset, Sequences, Split, leave_one_out
from lares.data.partners import PartnerIndex
from lares.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from lares.data.readers import load_dataset

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


def __getattr__(name: str) -> Any:
    if name == "load_dataset":  # on first use: it needs pyarrow, and nothing else here does
        from lares.data.readers import load_dataset

        return load_dataset
    raise AttributeError(f"module 'lares.data' has no attribute {name!r}")
