"""A model with the attributes of SASRec.pytorch, written for the tests; three kinds of layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

KINDS = ("query-zeros", "query", "post", "pre")


class FeedForward(nn.Module):
    def __init__(self, d: int, rate: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(d, d, 1), nn.Conv1d(d, d, 1)
        self.dropout1, self.dropout2 = nn.Dropout(rate), nn.Dropout(rate)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.dropout1(self.conv1(x.mT)))
        return self.dropout2(self.conv2(inner)).mT


class SequenceModel(nn.Module):
    """``kind`` of ``KINDS``; items 1 to ``items``, histories of up to ``longest``, padded left."""

    def __init__(
        self,
        kind: str,
        items: int = 30,
        longest: int = 9,
        d: int = 16,
        heads: int = 2,
        layers: int = 2,
        rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.kind = kind
        if kind in ("post", "pre"):
            self.norm_first = kind == "pre"
        rows = longest if kind == "query-zeros" else longest + 1
        self.item_emb = nn.Embedding(items + 1, d, padding_idx=0)
        self.pos_emb = nn.Embedding(rows, d, padding_idx=None if kind == "query-zeros" else 0)
        self.emb_dropout = nn.Dropout(rate)

        def norms() -> nn.ModuleList:
            return nn.ModuleList(nn.LayerNorm(d, eps=1e-8) for _ in range(layers))

        self.attention_layernorms, self.forward_layernorms = norms(), norms()
        self.attention_layers = nn.ModuleList(
            nn.MultiheadAttention(d, heads, rate) for _ in range(layers)
        )
        self.forward_layers = nn.ModuleList(FeedForward(d, rate) for _ in range(layers))
        self.last_layernorm = nn.LayerNorm(d, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
            else:
                nn.init.normal_(parameter, 0.5 if parameter.mean() > 0.5 else 0.0, 0.2)
        with torch.no_grad():
            self.item_emb.weight[0] = 0

    def _layer(self, i: int, x: Tensor, real: Tensor) -> Tensor:
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        norm, fed_norm = self.attention_layernorms[i], self.forward_layernorms[i]
        fed = self.forward_layers[i]

        def mix(query: Tensor, key: Tensor) -> Tensor:
            q, k = query.transpose(0, 1), key.transpose(0, 1)
            return self.attention_layers[i](q, k, k, attn_mask=mask)[0].transpose(0, 1)

        if self.kind == "post":
            u = norm(x + mix(x, x))
            return fed_norm(u + fed(u))
        q = norm(x)
        if self.kind == "pre":
            u = x + mix(q, q)
            return u + fed(fed_norm(u))
        v = fed_norm(q + mix(q, x))
        v = v + fed(v)
        return v * real if self.kind == "query-zeros" else v

    def log2feats(self, log_seqs: np.ndarray) -> Tensor:
        ids = torch.as_tensor(log_seqs, dtype=torch.int64)
        real = (ids != 0)[..., None]
        x = self.item_emb(ids) * self.item_emb.embedding_dim**0.5
        if self.kind == "query-zeros":
            x = self.emb_dropout(x + self.pos_emb(torch.arange(ids.shape[1]))) * real
        else:
            positions = torch.arange(1, ids.shape[1] + 1) * real[..., 0]
            x = self.emb_dropout(x + self.pos_emb(positions))
        for i in range(len(self.attention_layers)):
            x = self._layer(i, x, real)
        return self.last_layernorm(x)

    def forward(
        self, users: np.ndarray, log_seqs: np.ndarray, positives: np.ndarray, negatives: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        features = self.log2feats(log_seqs)
        scores = [
            (features * self.item_emb(torch.as_tensor(ids, dtype=torch.int64))).sum(-1)
            for ids in (positives, negatives)
        ]
        return scores[0], scores[1]

    def predict(self, users: np.ndarray, log_seqs: np.ndarray, items: np.ndarray) -> Tensor:
        last = self.log2feats(log_seqs)[:, -1]
        return self.item_emb(torch.as_tensor(items, dtype=torch.int64)) @ last.squeeze(0)
