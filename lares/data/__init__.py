"""Interaction data: readers, leave-one-out samples, batches, partners, downloads."""

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
