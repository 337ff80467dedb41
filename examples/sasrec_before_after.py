"""A SASRec as many train it, before and after its layers go onto the op, and with recurrence.

    python examples/sasrec_before_after.py ml-100k            # downloads MovieLens 100K
    python examples/sasrec_before_after.py interactions.parquet --epochs 20

Model and training are plain PyTorch in the style of SASRec.pytorch; lines that end in ``# lares`` are
the whole difference.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lares.data.dataset import Dataset
from lares.data.fetch.movielens import get_movielens_100k
from lares.data.readers import load_dataset
from lares.integrations import sasrec  # lares

KINDS = ("before", "after", "recurrent")


class FeedForward(nn.Module):
    """Two products with ReLU between, written as convolutions of one item."""

    def __init__(self, d: int, rate: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(d, d, 1), nn.Conv1d(d, d, 1)
        self.dropout1, self.dropout2 = nn.Dropout(rate), nn.Dropout(rate)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout2(self.conv2(self.relu(self.dropout1(self.conv1(x.mT))))).mT


class SASRec(nn.Module):
    """Post-norm SASRec; histories (B, L) are padded with 0 on the left."""

    norm_first = False

    def __init__(self, n_items: int, length: int, d: int, layers: int, rate: float) -> None:
        super().__init__()
        self.item_emb = nn.Embedding(n_items, d, padding_idx=0)
        self.pos_emb = nn.Embedding(length + 1, d, padding_idx=0)
        self.emb_dropout = nn.Dropout(rate)
        self.attention_layernorms = nn.ModuleList(nn.LayerNorm(d, 1e-8) for _ in range(layers))
        self.attention_layers = nn.ModuleList(
            nn.MultiheadAttention(d, 1, rate) for _ in range(layers)
        )
        self.forward_layernorms = nn.ModuleList(nn.LayerNorm(d, 1e-8) for _ in range(layers))
        self.forward_layers = nn.ModuleList(FeedForward(d, rate) for _ in range(layers))
        self.last_layernorm = nn.LayerNorm(d, 1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_emb.weight[0] = self.pos_emb.weight[0] = 0

    def log2feats(self, log_seqs: np.ndarray) -> Tensor:
        ids = torch.from_numpy(log_seqs)
        places = torch.arange(1, ids.shape[1] + 1) * (ids != 0)
        x = self.item_emb(ids) * self.item_emb.embedding_dim**0.5 + self.pos_emb(places)
        x = self.emb_dropout(x).transpose(0, 1)
        mask = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        for norm, attention, ffn_norm, ffn in zip(
            self.attention_layernorms,
            self.attention_layers,
            self.forward_layernorms,
            self.forward_layers,
            strict=True,
        ):
            x = norm(x + attention(x, x, x, attn_mask=mask)[0]).transpose(0, 1)
            x = ffn_norm(x + ffn(x)).transpose(0, 1)
        return self.last_layernorm(x.transpose(0, 1))

    def forward(self, seq: np.ndarray, pos: np.ndarray, neg: np.ndarray) -> tuple[Tensor, Tensor]:
        features = self.log2feats(seq)
        scores = [(features * self.item_emb(torch.from_numpy(ids))).sum(-1) for ids in (pos, neg)]
        return scores[0], scores[1]


def batches(histories: list[np.ndarray], n_items: int, options: Any, epoch: int) -> Any:
    """(items, next items, random others) of an epoch, (B, L) int64 each."""
    rng = np.random.default_rng((options.seed, epoch))
    order = rng.permutation(len(histories))
    for first in range(0, len(order), options.batch):
        users = order[first : first + options.batch]
        seq, pos, neg = np.zeros((3, len(users), options.length), np.int64)
        for row, user in enumerate(users):
            items = histories[user][-options.length - 1 :]
            n = len(items) - 1
            seq[row, options.length - n :], pos[row, options.length - n :] = items[:-1], items[1:]
            neg[row, options.length - n :] = rng.integers(1, n_items, n)
        yield seq, pos, neg


def ndcg(model: SASRec, data: Dataset, length: int, k: int = 10) -> float:
    """NDCG@k of the test items among all items."""
    model.eval()
    total, test = 0.0, data.test
    with torch.no_grad():
        for start, end in zip(test.starts, test.ends, strict=True):
            seq = np.zeros((1, length), np.int64)
            items = test.items[max(start, end - length) : end]
            seq[0, length - len(items) :] = items
            scores = model.log2feats(seq)[0, -1] @ model.item_emb.weight.T
            scores[0] = -torch.inf
            rank = int((scores > scores[int(test.items[end])]).sum())
            total += 1 / np.log2(rank + 2) if rank < k else 0.0
    return total / len(test)


def train(data: Dataset, options: Any, kind: str) -> tuple[list[float], float, float]:
    """(loss of each epoch, seconds of training, NDCG@10)."""
    torch.manual_seed(options.seed)
    n_items, test = data.vocabulary.n_items, data.test
    # What stands before the validation item trains.
    histories = [
        test.items[start : end - 1] for start, end in zip(test.starts, test.ends, strict=True)
    ]
    histories = [items for items in histories if len(items) > 1]
    model = SASRec(n_items, options.length, options.width, 2, options.dropout)
    if kind == "after":  # lares
        sasrec.accelerate(model)  # lares
    if kind == "recurrent":  # lares
        sasrec.make_recurrent(model, n_pre=1)  # lares
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    criterion = nn.BCEWithLogitsLoss()
    losses, seconds = [], 0.0
    for epoch in range(options.epochs):
        model.train()
        total, count, started = 0.0, 0, time.perf_counter()
        for seq, pos, neg in batches(histories, n_items, options, epoch):
            positive, negative = model(seq, pos, neg)
            real = torch.from_numpy(pos != 0)
            loss = criterion(positive[real], torch.ones_like(positive[real]))
            loss = loss + criterion(negative[real], torch.zeros_like(negative[real]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total + loss.item(), count + 1
        seconds += time.perf_counter() - started
        losses.append(total / count)
    return losses, seconds, ndcg(model, data, options.length)


def main(arguments: list[str] | None = None) -> dict[str, tuple[list[float], float, float]]:
    """Train before, after and with recurrence, and print each's time and metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a file that `lares data info` reads, or ml-100k")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--curve", type=Path, help="CSV file to add every epoch's loss to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    path = get_movielens_100k() if options.data == "ml-100k" else Path(options.data)
    data = load_dataset(path)
    found = {}
    for kind in options.kinds:
        found[kind] = train(data, options, kind)
        losses, seconds, metric = found[kind]
        print(f"{kind}: loss {losses[-1]:.4f}, {seconds:.1f} s of training, NDCG@10 {metric:.4f}")
        if options.curve is not None:
            with options.curve.open("a", newline="") as file:
                rows = csv.writer(file)
                rows.writerows((kind, options.seed, e, loss) for e, loss in enumerate(losses, 1))
    return found


if __name__ == "__main__":
    main()
