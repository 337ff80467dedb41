"""Interaction data: readers, leave-one-out samples, batches, partners, downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lares.on_first_use import on_first_use

if TYPE_CHECKING:
    from lares.data.batches import collate as collate
    from lares.data.batches import epoch_order as epoch_order
    from lares.data.dataset import Dataset as Dataset
    from lares.data.dataset import Sequences as Sequences
    from lares.data.dataset import leave_one_out as leave_one_out
    from lares.data.partners import PartnerIndex as PartnerIndex
    from lares.data.readers import load_dataset as load_dataset
    from lares.data.split import Split as Split
    from lares.data.vocabulary import Vocabulary as Vocabulary

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
__all__ = list(_HOMES)
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
