"""Training steps of models that others wrote, before and after their layers went onto the op.

Both train on the same batches of real histories from the same first weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lares.data.dataset import Dataset
from lares.integrations import sasrec
from tests.integrations.recbole_options import ModelOptions, OneNumber
from tests.integrations.sasrec_pytorch import SequenceModel

Batch = dict[str, Any]


class Training:
    """A model and its optimiser; a call is one step on the next batch.

    Args:
        model: trained in place.
        loss: of the model on a batch.
        batches: taken in turn, over and over.
    """

    def __init__(
        self, model: nn.Module, loss: Callable[[Any, Batch], Tensor], batches: list[Batch]
    ) -> None:
        self.model, self.loss, self.batches = model, loss, batches
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.losses: list[float] = []

    def __call__(self) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.loss(self.model, self.batches[len(self.losses) % len(self.batches)])
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())


def histories(dataset: Dataset) -> list[np.ndarray]:
    """Items of each user that training may see."""
    test = dataset.test
    # A test sample's history ends before the last item; the one before is validation's.
    return [test.items[start : end - 1] for start, end in zip(test.starts, test.ends, strict=True)]


def left_padded(dataset: Dataset, batch: int, length: int, count: int) -> list[Batch]:
    """Batches as SASRec.pytorch draws them: a user a row, next items and random others."""
    users, rng = histories(dataset), np.random.default_rng(0)
    n_items = dataset.vocabulary.n_items
    found = []
    for _ in range(count):
        rows: dict[str, Any] = {
            name: np.zeros((batch, length), np.int64) for name in ("seq", "pos", "neg")
        }
        for row, user in enumerate(rng.integers(0, len(users), batch)):
            items = users[user][-length - 1 :]
            n = len(items) - 1
            rows["seq"][row, length - n :] = items[:-1]
            rows["pos"][row, length - n :] = items[1:]
            rows["neg"][row, length - n :] = rng.integers(1, n_items, n)
        found.append(rows)
    return found


def pairwise_loss(model: Any, batch: Batch) -> Tensor:
    """Binary cross entropy of next items against random others, as SASRec.pytorch trains."""
    seq, pos, neg = batch["seq"], batch["pos"], batch["neg"]
    next_scores, other_scores = model(np.arange(len(seq)), seq, pos, neg)
    real = torch.from_numpy(pos != 0)
    loss = nn.functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones_like(next_scores[real]), torch.zeros_like(other_scores[real])
    return loss(next_scores[real], ones) + loss(other_scores[real], zeros)


def sasrec_pytorch(
    dataset: Dataset, kind: str, *, batch: int, length: int, d: int, rate: float, count: int
) -> dict[str, Training]:
    """A SASRec.pytorch-style model before and after."""
    torch.manual_seed(0)
    theirs = SequenceModel(
        kind, dataset.vocabulary.n_items - 1, length, d, heads=1, layers=2, rate=rate
    )
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            continue
        nn.init.xavier_normal_(parameter)
    with torch.no_grad():
        theirs.item_emb.weight[0] = 0
    ours = sasrec.accelerate(copy.deepcopy(theirs))
    batches = left_padded(dataset, batch, length, count)
    return {
        "sasrec-pytorch": Training(theirs, pairwise_loss, batches),
        "op": Training(ours, pairwise_loss, batches),
    }


def right_padded(dataset: Dataset, batch: int, length: int, count: int) -> Iterator[Batch]:
    """Batches as RecBole makes them: every prefix a sample, drawn at random."""
    train, rng = dataset.train, np.random.default_rng(0)
    for _ in range(count):
        seq, lengths = np.zeros((batch, length), np.int64), np.zeros(batch, np.int64)
        target = np.zeros(batch, np.int64)
        for row, sample in enumerate(rng.integers(0, len(train), batch)):
            start, end = train.starts[sample], train.ends[sample]
            items = train.items[max(start, end - length) : end]
            seq[row, : len(items)], lengths[row], target[row] = items, len(items), train.items[end]
        made = {"item_id_list": seq, "item_length": lengths, "item_id": target}
        yield {name: torch.from_numpy(value) for name, value in made.items()}


def recbole(
    dataset: Dataset, *, batch: int, length: int, rate: float, count: int
) -> dict[str, Training]:
    """RecBole's SASRec with its own defaults, before and after."""
    from lares.integrations import recbole as swap

    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": rate, "attn_dropout_prob": rate}
    options = ModelOptions({**swap.DEFAULTS, "MAX_ITEM_LIST_LENGTH": length, **rates})
    theirs = swap.SASRec(options, OneNumber(dataset.vocabulary.n_items))
    ours = swap.accelerate(copy.deepcopy(theirs))
    batches = list(right_padded(dataset, batch, length, count))

    def loss(model: Any, given: Batch) -> Tensor:
        found: Tensor = model.calculate_loss(given)
        return found

    return {"recbole-sasrec": Training(theirs, loss, batches), "op": Training(ours, loss, batches)}
