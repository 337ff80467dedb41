"""Models laid out like SASRec.pytorch, on the op.

That program has gone through three kinds of layers, and forks keep them all: query-norm with padding
held at zero, query-norm with padding as tokens, and (``norm_first``) post- or pre-norm with padding as
tokens. Attributes cannot tell all of them apart, so :func:`accelerate` runs the model's own
``log2feats`` on a few random histories, and takes what gives the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lares.integrations.swapped import (
    SwappedLayers,
    checked_recurrence,
    config_of_layers,
    let_reason,
    swapped_layers,
)
from lares.model.modes import evaluating
from lares_kernels import CoreConfig, UnsupportedModuleError
from lares_kernels.common.whole import is_whole
from lares_kernels.interop.from_torch import activation_name
from lares_kernels.interop.parts import Drops, parts_of, refuse
from lares_kernels.interop.torch_layers import (
    LayerTensors,
    attention_tensors,
    check_attention,
    check_norm,
    kind_of,
    linear_tensors,
    norm_tensors,
    renew_weights,
    require_type,
)
from lares_kernels.spec.seeds import DrawSeeds

_LISTS = ("attention_layernorms", "attention_layers", "forward_layernorms", "forward_layers")
_FEED_FORWARD = ("conv1", "conv2", "dropout1", "dropout2", "relu")
_TOLERANCE = 1e-4  # of features, relative to their size
_PROBES, _PROBE_LENGTH = 4, 8


def accelerate(model: nn.Module, seed: int | None = None) -> nn.Module:
    """Let ``model.log2feats`` run its layers on the op; gives ``model`` itself.

    Everything else stays the model's: parameters and their names, ``forward``, ``predict``, optimisers
    and checkpoints made before or after. Features, and gradients without dropout, equal to rounding.
    Dropout in the layers keeps its places and rates and draws by address, a new seed each forward.

    Args:
        model: ``item_emb``, ``pos_emb``, ``emb_dropout``, ``attention_layernorms``,
            ``attention_layers``, ``forward_layernorms``, ``forward_layers``, ``last_layernorm`` and
            ``log2feats(log_seqs)`` as SASRec.pytorch has them; padding is 0 and on the left.
        seed: None draws a seed from torch's generator in every training forward, so that training
            goes on exactly from weights, optimiser and generator; a number is the first forward's, and
            each one after takes the next.

    Raises:
        UnsupportedModuleError: an attribute, which the message names, is missing or something else, or
            ``log2feats`` computes something that the op does not.
    """
    before = swapped_layers(model)
    if before is not None:
        if seed is not None:
            before.seeds = DrawSeeds(seed)
        return model
    base = _config(model)
    layers = SwappedLayers(base, _Tensors(model), model, DrawSeeds(seed))
    own = model.log2feats
    width = min(_PROBE_LENGTH, _most_items(model))
    probe = _probe(model, width)
    real = torch.from_numpy(probe != 0)
    errors = {}
    with torch.no_grad(), evaluating(model):
        wanted = cast("Any", own)(probe)
        real = real.to(wanted.device)
        for candidate in _candidates(model, layers, width):
            features = candidate.log2feats(probe)
            scale = float(wanted[real].abs().max())
            error = float((features - wanted)[real].abs().max()) / max(scale, 1e-30)
            if error < _TOLERANCE:
                _install(model, candidate)
                return model
            errors[candidate.name] = error
    tried = "; ".join(f"{name}: {error:.1e}" for name, error in errors.items())
    raise UnsupportedModuleError(
        f"log2feats computes something else than the layers it holds: relative error by kind: {tried}"
    )


def make_recurrent(
    model: nn.Module,
    n_pre: int = 1,
    mean_depth: int = 4,
    depth_sampler: str = "poisson-lognormal",
    seed: int | None = None,
) -> nn.Module:
    """Let the layers after the first ``n_pre`` refine their output step by step; gives ``model``.

    The model gains one module, ``lares_core_norm``: make the optimiser afterwards. Steps in training
    are drawn anew each forward; in evaluation they are ``model.lares_layers.recurrence.num_steps``, at
    first ``mean_depth``.

    Args:
        model, seed: as for :func:`accelerate`, or a model that went through it.
        n_pre: layers that run once, before the recurrence.
        mean_depth: mean number of steps in training.
        depth_sampler: one of ``lares.model.depth.DEPTH_SAMPLERS``.

    Raises:
        UnsupportedModuleError: as :func:`accelerate`.
        ConfigError: an option is out of range.
    """
    layers = swapped_layers(model)
    config = _config(model) if layers is None else layers.config
    recurrence = checked_recurrence(config, n_pre, mean_depth, depth_sampler)
    return let_reason(accelerate(model, seed), recurrence)  # checked before anything is changed


@dataclass
class _Features:
    """``log2feats`` of a model."""

    model: Any
    layers: SwappedLayers
    first_position: int  # of the first column
    moving: bool  # whether padding has position 0

    @property
    def name(self) -> str:
        config = self.layers.config
        padding = {"right": "as tokens", "left": "hidden", "left-zeros": "held at zero"}
        positions = f"positions from {self.first_position}"
        return f"{config.norm}-norm, padding {padding[config.padding]}, {positions}"

    def _positions(self, real: Tensor) -> Tensor:
        """Embedded positions of histories (B, L), (B, L, d), or (L, d) where they do not move."""
        table = self.model.pos_emb
        columns = torch.arange(real.shape[1], device=real.device) + self.first_position
        embedded = table(columns)
        if not self.moving:
            return cast("Tensor", embedded)
        padding = table.weight[0]
        if table.padding_idx == 0:  # the row of padding has no gradient
            padding = padding.detach()
        return torch.where(real[..., None], embedded, padding)

    def log2feats(self, log_seqs: Any) -> Tensor:
        """Features (B, L, d) of histories (B, L), 0 at padding, which stands on the left."""
        model = self.model
        device = model.item_emb.weight.device
        ids = torch.as_tensor(np.asarray(log_seqs) if isinstance(log_seqs, list) else log_seqs)
        if not is_whole(ids):
            raise ValueError(f"log_seqs must hold whole numbers; got {ids.dtype}")
        ids = ids.to(device, torch.int64)
        real = ids != 0
        x = _scaled_embedding(model.item_emb, ids) + self._positions(real)
        x = model.emb_dropout(x)
        padding = self.layers.config.padding
        # An empty history has no token: the first of its padding stands for it.
        lengths = None if padding == "right" else real.sum(1).clamp(min=1)
        x = self.layers.run(x, lengths, every_row=True)
        return cast("Tensor", model.last_layernorm(x))


def _scaled_embedding(table: nn.Embedding, ids: Tensor) -> Tensor:
    """``table(ids) sqrt(d)``; the shorter of the two is scaled."""
    scale = table.embedding_dim**0.5
    if table.num_embeddings > ids.numel() or table.max_norm is not None or table.sparse:
        scaled: Tensor = table(ids) * scale
        return scaled
    embedded: Tensor = functional.embedding(
        ids,
        table.weight * scale,
        table.padding_idx,
        scale_grad_by_freq=table.scale_grad_by_freq,
    )
    return embedded


def _install(model: nn.Module, features: _Features) -> None:
    object.__setattr__(model, "lares_layers", features.layers)
    object.__setattr__(model, "log2feats", features.log2feats)


def _candidates(model: Any, layers: SwappedLayers, width: int) -> Iterator[_Features]:
    """Return what a model with these attributes may compute."""
    base = layers.config
    positions = [(1, True), (1, False), (0, False)]
    if model.pos_emb.num_embeddings <= width:
        positions = [(0, False)]
    for padding, (first, moving) in itertools.product(("right", "left-zeros", "left"), positions):
        yield _Features(
            model, replace(layers, config=replace(base, padding=padding)), first, moving
        )


def _most_items(model: Any) -> int:
    return int(model.pos_emb.num_embeddings)


def _probe(model: Any, width: int) -> np.ndarray:
    """Histories of 1 to ``width`` random items, padded on the left."""
    generator = np.random.default_rng(0)
    ids = generator.integers(1, model.item_emb.num_embeddings, (_PROBES, width))
    for row, length in enumerate(np.linspace(1, width, _PROBES).astype(int)):
        ids[row, : width - length] = 0
    return ids


@dataclass
class _Tensors:
    """Read what the model has of its layers, at every call."""

    model: Any

    def __call__(self) -> list[LayerTensors]:
        lists = zip(*(getattr(self.model, name) for name in _LISTS), strict=True)
        return [_layer_tensors(*parts) for parts in lists]

    def drops(self) -> list[Drops]:
        """Return which of the layers' dropouts are on."""
        pairs = zip(self.model.attention_layers, self.model.forward_layers, strict=True)
        return [
            Drops(
                attention=attention.training,
                mixed=fed.dropout2.training,  # there is none after the attention
                fed=fed.dropout2.training,
                inner=fed.dropout1.training,
            )
            for attention, fed in pairs
        ]

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Give the layers' modules, and the tables, which are not called with what they were."""
        for name in _LISTS:
            for i, module in enumerate(getattr(self.model, name)):
                yield from parts_of(module, f"{name}.{i}")
        for name in ("item_emb", "pos_emb"):
            yield name, getattr(self.model, name)


def _layer_tensors(attn_norm: Any, attention: Any, ffn_norm: Any, ffn: Any) -> LayerTensors:
    renew_weights(ffn.conv1, ffn.conv2)
    up, down = (conv.weight.flatten(1) for conv in (ffn.conv1, ffn.conv2))  # a view of (out, in, 1)
    return {
        **attention_tensors(attention),
        **norm_tensors(attn_norm, "attn_norm", up),
        **linear_tensors(up, ffn.conv1.bias, "up"),
        **linear_tensors(down, ffn.conv2.bias, "down"),
        **norm_tensors(ffn_norm, "ffn_norm", up),
    }


def _config(model: nn.Module) -> CoreConfig:
    """Return what the attributes say of the layers; raise for what the op does not compute."""
    for name in (*_LISTS, "item_emb", "pos_emb", "emb_dropout", "last_layernorm", "log2feats"):
        if not hasattr(model, name):
            refuse(name, "missing", "a model laid out like SASRec.pytorch has it")
    require_type("item_emb", model.item_emb, nn.Embedding)
    require_type("pos_emb", model.pos_emb, nn.Embedding)
    require_type("emb_dropout", model.emb_dropout, nn.Dropout)
    d = cast("nn.Embedding", model.item_emb).embedding_dim
    check_norm("last_layernorm", model.last_layernorm, d)
    lists = [cast("nn.ModuleList", getattr(model, name)) for name in _LISTS]
    for name, modules in zip(_LISTS, lists, strict=True):
        require_type(name, modules, nn.ModuleList)
        if not len(modules) or len(modules) != len(lists[0]):
            refuse(name, f"{len(modules)} layers", f"{_LISTS[0]} has {len(lists[0])}")
    options = [_layer_options(i, d, *parts) for i, parts in enumerate(zip(*lists, strict=True))]
    norm = "query"
    if hasattr(model, "norm_first"):
        norm = "pre" if model.norm_first else "post"
    return config_of_layers(options, d, norm=norm, dropout_of="feed-forward")


def _layer_options(
    i: int, d: int, attn_norm: Any, attention: Any, ffn_norm: Any, ffn: Any
) -> dict[str, tuple[str, Any]]:
    """Return what decides what layer ``i`` computes, as :func:`config_of_layers` takes it; check the
    rest."""
    names = [f"{name}.{i}" for name in _LISTS]
    check_norm(names[0], attn_norm, d)
    check_attention(names[1], attention)
    check_norm(names[2], ffn_norm, d)
    for name in _FEED_FORWARD:
        if not hasattr(ffn, name):
            refuse(f"{names[3]}.{name}", "missing", "a feed-forward of SASRec.pytorch has it")
    for name in ffn._modules:
        if name not in _FEED_FORWARD:
            refuse(
                f"{names[3]}.{name}", type(getattr(ffn, name)).__name__, "the op has no such part"
            )
    for name in ("conv1", "conv2"):
        conv = getattr(ffn, name)
        require_type(f"{names[3]}.{name}", conv, nn.Conv1d, nn.Linear)
        if kind_of(conv) is nn.Conv1d:
            shape = (conv.kernel_size, conv.stride, conv.padding, conv.groups)
            if shape != ((1,), (1,), (0,), 1):
                wanted = "kernel, stride, padding and groups must be 1, 1, 0 and 1"
                refuse(f"{names[3]}.{name}", shape, wanted)
    for name in ("dropout1", "dropout2"):
        require_type(f"{names[3]}.{name}", getattr(ffn, name), nn.Dropout)
    activation = activation_name(f"{names[3]}.relu", ffn.relu)
    if activation != "relu" and ffn.dropout1.p:
        wanted = f"before {activation} it must be 0: the op drops after the activation"
        refuse(f"{names[3]}.dropout1.p", ffn.dropout1.p, wanted)
    if attn_norm.eps != ffn_norm.eps:
        refuse(f"{names[2]}.eps", ffn_norm.eps, f"{names[0]}.eps is {attn_norm.eps}")
    if attention.embed_dim != d:
        refuse(f"{names[1]}.embed_dim", attention.embed_dim, f"items are {d} wide")
    return {
        "n_heads": (f"{names[1]}.num_heads", attention.num_heads),
        "attn_dropout": (f"{names[1]}.dropout", attention.dropout),
        "d_ff": (f"{names[3]}.conv1", ffn.conv1.weight.shape[0]),
        "activation": (f"{names[3]}.relu", activation),
        "inner_dropout": (f"{names[3]}.dropout1.p", ffn.dropout1.p),
        "dropout": (f"{names[3]}.dropout2.p", ffn.dropout2.p),
        "eps": (f"{names[0]}.eps", attn_norm.eps),
        "batch_first": (f"{names[1]}.batch_first", attention.batch_first),
    }
