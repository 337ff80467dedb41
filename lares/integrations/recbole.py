"""RecBole's SASRec on the op, and LARES as models that ``run_recbole`` takes.

Importing this module makes the model names ``FusedSASRec`` and ``LARES`` known to RecBole, which needs
numpy below 2 and setuptools below 80 (docs/guide/swap.md).
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from recbole.config import Config
from recbole.model.layers import (
    FeedForward,
    MultiHeadAttention,
    TransformerEncoder,
    TransformerLayer,
)
from recbole.model.loss import BPRLoss
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from lares.integrations.swapped import (
    SwappedLayers,
    checked_recurrence,
    config_of_layers,
    let_reason,
    swapped_layers,
)
from lares_kernels import CoreConfig, catalogue_cross_entropy
from lares_kernels.interop.parts import Drops, parts_of, refuse, refuse_hooks
from lares_kernels.interop.torch_layers import (
    LayerTensors,
    check_norm,
    linear_tensors,
    norm_tensors,
    renew_weights,
    require_type,
)
from lares_kernels.spec.seeds import DrawSeeds

# What RecBole's own file says of SASRec, and the recurrence; for ``config_dict`` of ``run_recbole``.
DEFAULTS: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": 64,
    "inner_size": 256,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "loss_type": "CE",
    "train_neg_sample_args": None,
}
LARES_DEFAULTS: dict[str, Any] = {
    **DEFAULTS,
    "n_pre_layers": 1,
    "mean_depth": 4,
    "depth_sampler": "poisson-lognormal",
    "draw_seed": None,
}
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "swish": "silu"}


def accelerate(model: SASRec, seed: int | None = None, catalogue_loss: bool = True) -> SASRec:
    """Let a RecBole SASRec run its layers on the op, on real items alone; gives ``model`` itself.

    Parameters, their names, ``full_sort_predict``, trainers and checkpoints stay RecBole's. Scores, and
    gradients without dropout, are equal to rounding. Dropout in the layers keeps its places and rates
    and draws by address, a new seed each forward.

    Args:
        model: an instance of RecBole's ``SASRec``.
        seed: None draws a seed from torch's generator in every training forward, so that training
            goes on exactly from weights, optimiser and generator; a number is the first forward's, and
            each one after takes the next.
        catalogue_loss: take the cross entropy of ``loss_type: CE`` by the catalogue op, which makes no
            matrix of scores.

    Raises:
        UnsupportedModuleError: an attribute, which the message names, is not what SASRec has.
    """
    before = swapped_layers(model)
    if before is not None:
        if seed is not None:
            before.seeds = DrawSeeds(seed)
        return model
    layers = SwappedLayers(_config(model), _Tensors(model), model, DrawSeeds(seed))
    swap = _Swap(model, layers)
    object.__setattr__(model, "lares_layers", layers)
    object.__setattr__(model, "forward", swap.forward)
    if catalogue_loss and type(model.loss_fct) is nn.CrossEntropyLoss:
        _check_cross_entropy(model.loss_fct)
        object.__setattr__(model, "calculate_loss", swap.cross_entropy)
    return model


def make_recurrent(
    model: SASRec,
    n_pre: int = 1,
    mean_depth: int = 4,
    depth_sampler: str = "poisson-lognormal",
    seed: int | None = None,
) -> SASRec:
    """Let the layers after the first ``n_pre`` refine their output step by step; gives ``model``.

    The model gains one module, ``lares_core_norm``: make the trainer afterwards. Steps in training are
    drawn anew each forward; in evaluation they are ``model.lares_layers.recurrence.num_steps``, at
    first ``mean_depth``.

    Raises:
        UnsupportedModuleError: as :func:`accelerate`.
        ConfigError: an option is out of range.
    """
    layers = swapped_layers(model)
    config = _config(model) if layers is None else layers.config
    recurrence = checked_recurrence(config, n_pre, mean_depth, depth_sampler)
    return let_reason(accelerate(model, seed), recurrence)  # checked before anything is changed


class FusedSASRec(SASRec):  # type: ignore[misc]
    """RecBole's SASRec with its options, on the op from the start."""

    def __init__(self, config: Any, dataset: Any) -> None:
        _fill(config, DEFAULTS)
        super().__init__(config, dataset)
        accelerate(self)


class LARES(SASRec):  # type: ignore[misc]
    """SASRec whose layers after the first ``n_pre_layers`` reason, trained by SASRec's loss.

    Options besides SASRec's: those of ``LARES_DEFAULTS``. The alignment losses and reinforcement of the
    paper are not RecBole's training: ``lares train`` and ``lares posttrain`` have them.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        _fill(config, LARES_DEFAULTS)
        super().__init__(config, dataset)
        make_recurrent(
            self,
            n_pre=config["n_pre_layers"],
            mean_depth=config["mean_depth"],
            depth_sampler=config["depth_sampler"],
            seed=config["draw_seed"],
        )


def _fill_before_it_is_read() -> None:
    """Let RecBole's ``Config`` have our models' loss where the user names none.

    A model of RecBole's own has a file of options among RecBole's for this; ``Config`` decides by the
    loss how batches are made, before there is a model that could fill anything.
    """
    read = Config._set_default_parameters

    @functools.wraps(read)
    def fill_and_read(self: Any) -> None:
        if issubclass(self.model_class, FusedSASRec | LARES):
            options = self.final_config_dict
            if options.get("loss_type") is None:
                options["loss_type"] = DEFAULTS["loss_type"]
            # Cross entropy has no negative samples, and RecBole's default is one.
            named = "train_neg_sample_args" in self.external_config_dict
            if options["loss_type"] == "CE" and not named:
                options["train_neg_sample_args"] = None
        read(self)

    Config._set_default_parameters = fill_and_read


def _fill(config: Any, defaults: dict[str, Any]) -> None:
    """Options that the user left out."""
    for name, value in defaults.items():
        if value is not None and config[name] is None:
            config[name] = value


@dataclass
class _Swap:
    """Methods of a swapped model."""

    model: Any
    layers: SwappedLayers

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Newest rows (B, d) of histories (B, L), padded on the right with 0."""
        model = self.model
        columns = torch.arange(item_seq.shape[1], device=item_seq.device)
        real = columns < item_seq_len[:, None]
        places = real.flatten().nonzero().squeeze(1)  # of items, among padded ones
        positions = model.position_embedding(places % item_seq.shape[1])
        x = model.item_embedding(item_seq.flatten()[places]) + positions
        x = model.dropout(model.LayerNorm(x))
        starts = torch.zeros(len(item_seq) + 1, dtype=torch.int64, device=item_seq.device)
        torch.cumsum(item_seq_len, 0, out=starts[1:])
        return self.layers.run(x, None, every_row=False, cu_seqlens=starts)

    def cross_entropy(self, interaction: Any) -> Tensor:
        """``calculate_loss`` of ``loss_type: CE``."""
        model = self.model
        refuse_hooks([("loss_fct", model.loss_fct)])
        states = model.forward(interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN])
        items = interaction[model.POS_ITEM_ID]
        return catalogue_cross_entropy(states, model.item_embedding.weight, items)


@dataclass
class _Tensors:
    """Read what the model has of its layers, at every call."""

    model: Any

    def __call__(self) -> list[LayerTensors]:
        return [_layer_tensors(layer) for layer in self.model.trm_encoder.layer]

    def drops(self) -> list[Drops]:
        """Return which of the layers' dropouts are on."""
        return [
            Drops(
                attention=layer.multi_head_attention.attn_dropout.training,
                mixed=layer.multi_head_attention.out_dropout.training,
                fed=layer.feed_forward.dropout.training,
                inner=False,  # there is none
            )
            for layer in self.model.trm_encoder.layer
        ]

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Give the layers' modules, and those that are called with real items alone; without those by
        whose hooks RecBole counts the operations of a copy, of which it does not have the layers'."""
        encoder = self.model.trm_encoder
        called = ("item_embedding", "position_embedding", "LayerNorm", "dropout")
        for where, module in (
            *parts_of(encoder, "trm_encoder"),
            *((name, getattr(self.model, name)) for name in called),
        ):
            hooks = module._forward_hooks
            if not hooks or not all(map(_counts, hooks.values())):
                yield where, module


def _counts(hook: Any) -> bool:
    """Return whether a hook is one of ``recbole.utils.get_flops``."""
    return str(getattr(hook, "__module__", "")).partition(".")[0] in ("recbole", "thop")


def _layer_tensors(layer: Any) -> LayerTensors:
    attention, ffn = layer.multi_head_attention, layer.feed_forward
    parts = (attention.query, attention.key, attention.value)
    renew_weights(*parts, attention.dense, ffn.dense_1, ffn.dense_2)
    return {
        "qkv_weight": torch.cat([part.weight for part in parts]),
        "qkv_bias": torch.cat([part.bias for part in parts]),
        **linear_tensors(attention.dense.weight, attention.dense.bias, "out"),
        **norm_tensors(attention.LayerNorm, "attn_norm", attention.dense.weight),
        **linear_tensors(ffn.dense_1.weight, ffn.dense_1.bias, "up"),
        **linear_tensors(ffn.dense_2.weight, ffn.dense_2.bias, "down"),
        **norm_tensors(ffn.LayerNorm, "ffn_norm", attention.dense.weight),
    }


def _config(model: Any) -> CoreConfig:
    """Return what the layers compute; raise for what the op does not."""
    if not isinstance(model, SASRec):
        refuse("model", type(model).__name__, "it must be RecBole's SASRec")
    for name in ("forward", "calculate_loss", "full_sort_predict", "predict"):
        if getattr(type(model), name) is not getattr(SASRec, name):
            refuse(name, f"that of {type(model).__name__}", "a subclass must keep SASRec's")
    require_type("loss_fct", model.loss_fct, nn.CrossEntropyLoss, BPRLoss)
    require_type("trm_encoder", model.trm_encoder, TransformerEncoder)
    require_type("item_embedding", model.item_embedding, nn.Embedding)
    require_type("position_embedding", model.position_embedding, nn.Embedding)
    require_type("dropout", model.dropout, nn.Dropout)
    d = model.item_embedding.embedding_dim
    check_norm("LayerNorm", model.LayerNorm, d)
    options = [_layer_options(i, d, layer) for i, layer in enumerate(model.trm_encoder.layer)]
    return config_of_layers(options, d)


def _layer_options(i: int, d: int, layer: Any) -> dict[str, tuple[str, Any]]:
    """Return what decides what layer ``i`` computes, as :func:`config_of_layers` takes it; check the
    rest."""
    prefix = f"trm_encoder.layer.{i}"
    require_type(prefix, layer, TransformerLayer)
    attention, ffn = layer.multi_head_attention, layer.feed_forward
    require_type(f"{prefix}.multi_head_attention", attention, MultiHeadAttention)
    require_type(f"{prefix}.feed_forward", ffn, FeedForward)
    parts = ("query", "key", "value", "dense")
    linear = [(f"multi_head_attention.{name}", getattr(attention, name)) for name in parts]
    linear += [(f"feed_forward.{name}", getattr(ffn, name)) for name in ("dense_1", "dense_2")]
    for name, module in linear:
        require_type(f"{prefix}.{name}", module, nn.Linear)
    for name, module in (("multi_head_attention", attention), ("feed_forward", ffn)):
        check_norm(f"{prefix}.{name}.LayerNorm", module.LayerNorm, d)
    drops = {
        "multi_head_attention.attn_dropout": attention.attn_dropout,
        "multi_head_attention.out_dropout": attention.out_dropout,
        "feed_forward.dropout": ffn.dropout,
    }
    for name, module in drops.items():
        require_type(f"{prefix}.{name}", module, nn.Dropout)
    where = f"{prefix}.feed_forward"
    if ffn.dropout.p != attention.out_dropout.p:
        wanted = f"multi_head_attention.out_dropout.p is {attention.out_dropout.p}"
        refuse(f"{where}.dropout.p", ffn.dropout.p, wanted)
    if ffn.LayerNorm.eps != attention.LayerNorm.eps:
        wanted = f"multi_head_attention.LayerNorm.eps is {attention.LayerNorm.eps}"
        refuse(f"{where}.LayerNorm.eps", ffn.LayerNorm.eps, wanted)
    mixing = f"{prefix}.multi_head_attention"
    return {
        "n_heads": (f"{mixing}.num_attention_heads", attention.num_attention_heads),
        "attn_dropout": (f"{mixing}.attn_dropout.p", attention.attn_dropout.p),
        "dropout": (f"{mixing}.out_dropout.p", attention.out_dropout.p),
        "d_ff": (f"{where}.dense_1.out_features", ffn.dense_1.out_features),
        "activation": (f"{where}.intermediate_act_fn", _activation(where, ffn)),
        "eps": (f"{where}.LayerNorm.eps", ffn.LayerNorm.eps),
    }


def _activation(where: str, ffn: Any) -> str:
    for name, ours in _ACTIVATIONS.items():
        if ffn.intermediate_act_fn == ffn.get_hidden_act(name):
            return ours
    function = getattr(ffn.intermediate_act_fn, "__name__", ffn.intermediate_act_fn)
    refuse(f"{where}.intermediate_act_fn", function, f"it must be one of {', '.join(_ACTIVATIONS)}")
    raise AssertionError


def _check_cross_entropy(loss: nn.CrossEntropyLoss) -> None:
    options = (loss.weight, loss.ignore_index, loss.reduction, loss.label_smoothing)
    if options != (None, -100, "mean", 0.0):
        wanted = "only a plain one is served: pass catalogue_loss=False"
        refuse("loss_fct", "a CrossEntropyLoss with options", wanted)


def _register(*models: type) -> None:
    """Put model classes where ``recbole.utils.get_model`` looks for their names."""
    for model in models:
        name = f"recbole.model.sequential_recommender.{model.__name__.lower()}"
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
        setattr(module, model.__name__, model)
        sys.modules[name] = module


_register(FusedSASRec, LARES)
_fill_before_it_is_read()
