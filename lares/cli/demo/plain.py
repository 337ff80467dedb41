"""SASRec and LARES as one would write them in PyTorch: padded, eager, with torch's own attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lares.model.model import LaresModel
from lares_kernels import RecurrentCore
from lares_kernels.spec.parameters import layer_parameters_of

Layers = list[dict[str, Tensor]]


class PlainModel:
    """Computes what a model does, from its own parameters, without the kernels.

    Batches are padded to their longest history, at its end, where the causal mask hides it from
    everything before.

    Args:
        model: whose parameters to read; gradients reach them. Post-norm, GELU, adapter ``add``, states
            that start at zero, scores by dot products. Dropout is on where it is in training mode.
    """

    def __init__(self, model: LaresModel) -> None:
        self.model, self.encoder, self.config = model, model.encoder, model.config

    def states(self, items: Tensor) -> Tensor:
        """Return the state of every prefix, (B, L, d), of padded rows of items (B, L)."""
        encoder, config = self.encoder, self.config
        x = encoder.item_embedding(items) + encoder.position_embedding.weight[: items.shape[1]]
        x = functional.dropout(encoder.input_norm(x), config.dropout, self.model.training)
        if encoder.pre is not None:
            for layer in _layers(encoder.pre):
                x = self._layer(x, layer)
        if encoder.core is None:
            return x
        core, layers, state = encoder.core, _layers(encoder.core), torch.zeros_like(x)
        norm = dict(core.named_parameters())
        for _ in range(config.mean_depth):
            state = self._norm((state + x) / 2, norm["core_norm_weight"], norm["core_norm_bias"])
            for layer in layers:
                state = self._layer(state, layer)
        return state

    def loss(self, histories: Sequence[Tensor]) -> Tensor:
        """Return the cross entropy of every next item over all of them, from the items before it."""
        padded = pad_sequence(list(histories), batch_first=True)
        states, targets = self.states(padded[:, :-1]), padded[:, 1:]
        real = targets > 0
        return functional.cross_entropy(states[real] @ self.model.items.T, targets[real])

    @torch.no_grad()
    def scores(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """Return the score of every row of the catalogue, (B, V), for each history."""
        recent = [torch.tensor(history[-self.config.max_length :]) for history in histories]
        ends = torch.tensor([len(history) - 1 for history in recent])
        states = self.states(pad_sequence(recent, batch_first=True))
        scores: Tensor = states[torch.arange(len(recent)), ends] @ self.model.items.T
        return scores

    def recommend(self, histories: Sequence[Sequence[int]], k: int) -> list[list[int]]:
        """Return the ``k`` best rows for each history, best first, without its own."""
        scores = self.scores(histories)
        seen = pad_sequence([torch.tensor(history) for history in histories], batch_first=True)
        scores.scatter_(1, seen, -torch.inf)
        scores[:, 0] = -torch.inf  # padding's row
        found: list[list[int]] = scores.topk(k).indices.tolist()
        return found

    def _layer(self, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        """Compute one post-norm layer, (B, L, d) to (B, L, d)."""
        config, training = self.config, self.model.training
        batch, length, width = x.shape
        heads = batch, length, 3, config.n_heads, width // config.n_heads
        qkv = functional.linear(x, p["qkv_weight"], p["qkv_bias"]).view(heads)
        rate = config.attn_dropout if training else 0.0
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=rate, is_causal=True
        )
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        branch = functional.linear(mixed, p["out_weight"], p["out_bias"])
        branch = functional.dropout(branch, config.dropout, training)
        x = self._norm(x + branch, p["attn_norm_weight"], p["attn_norm_bias"])
        inner = functional.gelu(functional.linear(x, p["up_weight"], p["up_bias"]))
        branch = functional.linear(inner, p["down_weight"], p["down_bias"])
        branch = functional.dropout(branch, config.dropout, training)
        return self._norm(x + branch, p["ffn_norm_weight"], p["ffn_norm_bias"])

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, self.config.eps)


def _layers(core: RecurrentCore) -> Layers:
    """Return the parameters of each layer, taken out of their stacks once for all steps."""
    names = layer_parameters_of(core.config)
    stacks = [getattr(core, name).unbind(0) for name in names]
    return [dict(zip(names, layer, strict=True)) for layer in zip(*stacks, strict=True)]
