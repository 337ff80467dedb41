"""Scores of histories, as the fixtures store them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lares import LaresModel


def scores_of(
    model: LaresModel, rows: Sequence[Sequence[int]], seed: int, depth: int | None = None
) -> torch.Tensor:
    """Scores (B, V) of histories of catalogue rows, drawn as ``recommend`` draws them."""
    recent = [torch.tensor(row[-model.config.max_length :]) for row in rows]
    lengths = torch.tensor([len(row) for row in recent])
    item_seq = torch.nn.utils.rnn.pad_sequence(recent, batch_first=True)
    with torch.no_grad():
        return model.scores(item_seq, lengths, depth, seed=seed)
