"""Interaction data: readers, leave-one-out samples, batches, partners, downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lares.on_first_use import on_first_use

if TYPE_CHECKING:
    from lares.data.batches import collate, epoch_order
    from lares.data.dataset import Dataset, Sequences, leave_one_out
    from lares.data.partners import PartnerIndex
    from lares.data.readers import load_dataset
    from lares.data.split import Split
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

_HOMES = {
    "Dataset": "lares.data.dataset",
    "PartnerIndex": "lares.data.partners",
    "Sequences": "lares.data.dataset",
    "Split": "lares.data.split",
    "Vocabulary": "lares.data.vocabulary",
    "collate": "lares.data.batches",
    "epoch_order": "lares.data.batches",
    "leave_one_out": "lares.data.dataset",
    "load_dataset": "lares.data.readers",
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
