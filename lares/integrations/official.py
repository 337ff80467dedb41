"""Checkpoints of the LARES authors' released program, in and out.

Only names and shapes are translated; the arithmetic is the same (docs/develop/training.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lares.errors import CheckpointError, ConfigError
from lares.integrations.safe_pickle import Inert, is_larger_than_stored, load_pickle
from lares.model.config import LaresConfig
from lares.model.model import LaresModel
from lares.names import shown
from lares.plain import whole

# Released option -> ours; options not listed belong to its trainer or to other models.
_OPTION_NAMES = {
    "n_items": "n_items",
    "MAX_ITEM_LIST_LENGTH": "max_length",
    "hidden_size": "d_model",
    "n_heads": "n_heads",
    "inner_size": "d_ff",
    "n_pre_layers": "n_pre_layers",
    "n_core_layers": "n_core_layers",
    "hidden_act": "activation",
    "adapter_type": "adapter",
    "layer_norm_eps": "eps",
    "hidden_dropout_prob": "dropout",
    "mean_recurrence": "mean_depth",
    "sampling_scheme": "depth_sampler",
    "state_init_method": "state_mode",
    "state_scale": "state_omega",
    "state_std": "state_sigma",
    "sem_func": "scores",
    "tau": "tau",
    "initializer_range": "initializer_range",
    "a": "band_share",
    "c": "cutoff",
}
_TEXT_OPTIONS = {
    "plm_size": "text_width",
    "n_exps": "text_experts",
    "adaptor_dropout_prob": "text_dropout",
}
_REQUIRED_OPTIONS = ("n_items", "MAX_ITEM_LIST_LENGTH", "hidden_size")
_REQUIRED_OF_ATTENTION = ("n_heads", "inner_size")
_VALUE_NAMES = {
    "adapter_type": {"add": "add", "linear": "gate", "concat": "concat"},
    "hidden_act": {"gelu": "gelu", "relu": "relu", "swish": "silu"},
}
_CORES = {"LARES": "attention", "BSARec": "bsarec", "FMLPRec": "filter", "TedRec": "attention"}
_FILTER_WIDENING = (
    4  # its FMLP-Rec's feed-forward has this many times the width, whatever it is told
)


# Our stacked parameter -> the released program's tensors of one layer, joined along their rows.


def _layer_names(attention: str, feed_forward: str, filters: str) -> dict[str, tuple[str, ...]]:
    """Names of a layer whose sublayers are called so."""
    names: dict[str, tuple[str, ...]] = {
        "filter_weight": (f"{filters}.complex_weight",),
        "band_scale": (f"{filters}.sqrt_beta",),
    }
    for kind in ("weight", "bias"):
        names |= {
            f"qkv_{kind}": tuple(f"{attention}.{n}.{kind}" for n in ("query", "key", "value")),
            f"out_{kind}": (f"{attention}.dense.{kind}",),
            f"attn_norm_{kind}": (f"{attention}.LayerNorm.{kind}",),
            f"filter_norm_{kind}": (f"{filters}.LayerNorm.{kind}",),
            f"up_{kind}": (f"{feed_forward}.dense_1.{kind}",),
            f"down_{kind}": (f"{feed_forward}.dense_2.{kind}",),
            f"ffn_norm_{kind}": (f"{feed_forward}.LayerNorm.{kind}",),
        }
    return names


# By core: what a block calls its layers, and those their tensors.
_LAYER_NAMES = {
    "attention": ("layer", _layer_names("multi_head_attention", "feed_forward", "")),
    "filter": ("layer", _layer_names("", "intermediate", "filterlayer")),
    "bsarec": (
        "blocks",
        _layer_names("layer.attention_layer", "feed_forward", "layer.filter_layer"),
    ),
}
# Tensors that it stores with dimensions of size 1 before ours.
_LEADING_ONES = {"filter_weight": 1, "band_scale": 2, "encoder.text.filter_weight": 1}
_SINGLE_NAMES = {
    "encoder.item_embedding.weight": "item_embedding.weight",
    "encoder.position_embedding.weight": "position_embedding.weight",
    "encoder.input_norm.weight": "layernorm_1.weight",
    "encoder.input_norm.bias": "layernorm_1.bias",
    "encoder.core.core_norm_weight": "layernorm_2.weight",
    "encoder.core.core_norm_bias": "layernorm_2.bias",
    "encoder.core.gate": "adapter",
    "encoder.core.concat_weight": "adapter.weight",
    "encoder.core.concat_bias": "adapter.bias",
    "encoder.text.features": "plm_embedding.weight",
    "encoder.text.filter_weight": "complex_weight",
    "encoder.text.gate_weight": "moe_adaptor.w_gate",
    "encoder.text.noise_weight": "moe_adaptor.w_noise",
    "encoder.text.item_gate.weight": "item_gating.weight",
    "encoder.text.item_gate.bias": "item_gating.bias",
    "encoder.text.fusion_gate.weight": "fusion_gating.weight",
    "encoder.text.fusion_gate.bias": "fusion_gating.bias",
}
# By expert, as layers are by layer; the biases with one leading dimension.
_EXPERT_NAMES = {
    "encoder.text.expert_weight": ("lin.weight", 0),
    "encoder.text.expert_bias": ("bias", 1),
}
_BLOCKS = {"encoder.pre": "pre_encoder", "encoder.core": "core_encoder"}


def config_from_official(options: Mapping[str, Any]) -> LaresConfig:
    """Our configuration of a model of the released program.

    Args:
        options: its configuration, with ``n_items`` and ``model`` added.

    Raises:
        ConfigError: an option is missing, or asks for what this package does not have.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f"the released configuration is {shown(options)}; it must be a mapping")
    given = str(options.get("model", "LARES"))
    models = {name.lower(): name for name in _CORES}
    if given.lower() not in models:
        raise ConfigError(f"model is {given!r}; it must be one of {', '.join(_CORES)}")
    model = models[given.lower()]
    required = _REQUIRED_OPTIONS + (() if model == "FMLPRec" else _REQUIRED_OF_ATTENTION)
    for name in required:
        if name not in options:
            raise ConfigError(f"the released configuration has no {name!r}")
    ours: dict[str, Any] = {"core": _CORES[model]}
    names = dict(_OPTION_NAMES)
    if model == "TedRec":
        names |= _TEXT_OPTIONS
        if "plm_size" not in options:
            raise ConfigError("the released configuration has no 'plm_size'")
    for theirs, name in names.items():
        if theirs not in options:
            continue
        value = options[theirs]
        if theirs in _VALUE_NAMES:
            if not isinstance(value, str) or value not in _VALUE_NAMES[theirs]:
                served = ", ".join(_VALUE_NAMES[theirs])
                raise ConfigError(f"{theirs} is {shown(value)}; served are {served}")
            value = _VALUE_NAMES[theirs][value]
        ours[name] = value
    # Its attention layers are built with the hidden rate for both; the other option does nothing.
    if "dropout" in ours:
        ours["attn_dropout"] = ours["dropout"]
    if model == "FMLPRec":
        width = whole("hidden_size", ours["d_model"], 1)
        ours |= {"d_ff": _FILTER_WIDENING * width, "n_heads": 1}
    return LaresConfig.from_dict(ours)


_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_Pieces = list[tuple[str, Callable[[Tensor], Tensor]]]


def _official_pieces(model: LaresModel) -> Iterator[tuple[str, _Pieces]]:
    """For each of our tensors: the released names, each with the view of ours that it is."""
    layers, names = _LAYER_NAMES[model.config.core]
    for name, tensor in _tensors(model).items():
        if name in _SINGLE_NAMES:
            yield name, [(_SINGLE_NAMES[name], _part(..., _LEADING_ONES.get(name, 0)))]
            continue
        if name in _EXPERT_NAMES:
            short, ones = _EXPERT_NAMES[name]
            places = range(len(tensor))
            yield name, [(f"moe_adaptor.experts.{i}.{short}", _part(i, ones)) for i in places]
            continue
        block, short = name.rsplit(".", 1)
        parts = names[short]
        rows = tensor.shape[1] // len(parts)
        yield (
            name,
            [
                (
                    f"{_BLOCKS[block]}.{layers}.{layer}.{part}",
                    _part(
                        (layer, slice(index * rows, (index + 1) * rows)),
                        _LEADING_ONES.get(short, 0),
                    ),
                )
                for layer in range(tensor.shape[0])
                for index, part in enumerate(parts)
            ],
        )


def _tensors(model: LaresModel) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _part(index: Any, leading_ones: int) -> Callable[[Tensor], Tensor]:
    """The view of a tensor at ``index``, with so many dimensions of size 1 before its own."""
    return lambda whole: whole[index][(None,) * leading_ones]


def official_state_dict(model: LaresModel) -> dict[str, Tensor]:
    """The model's weights under the released program's names, as copies."""
    weights = _tensors(model)
    return {
        theirs: view(weights[ours].detach()).clone()
        for ours, pieces in _official_pieces(model)
        for theirs, view in pieces
    }


def official_gradients(model: LaresModel) -> dict[str, Tensor]:
    """The gradients of the model's parameters under the released program's names, as copies."""
    weights = _tensors(model)
    gradients: dict[str, Tensor] = {}
    for ours, pieces in _official_pieces(model):
        gradient = weights[ours].grad
        if gradient is not None:
            gradients |= {theirs: view(gradient).clone() for theirs, view in pieces}
    return gradients


def load_official(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> LaresModel:
    """A model with the weights of a checkpoint of the released program.

    Args:
        state_dict: by the released program's names; its floating type becomes the model's.
        config: the released configuration with ``n_items`` and ``model`` added: ``"LARES"``,
            ``"BSARec"``, ``"FMLPRec"`` or ``"TedRec"``.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        ConfigError: the configuration asks for what this package does not have.
        CheckpointError: a tensor is missing, of another shape, not used, or none of real numbers.
    """
    ours = config_from_official(config)
    _check_tensors(state_dict)
    _check_official(LaresModel.without_memory(ours), state_dict)
    model = LaresModel(ours)
    if state_dict:
        model.to(next(iter(state_dict.values())).dtype)
    weights = _tensors(model)
    with torch.no_grad():
        for name, pieces in _official_pieces(model):
            for theirs, view in pieces:
                view(weights[name]).copy_(state_dict[theirs])
    return model.eval()


def _check_tensors(state_dict: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` unless a state dict is one: real numbers by name."""
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"the released checkpoint is {shown(state_dict)}; it must hold tensors by name"
        )
    for name, tensor in state_dict.items():
        real = isinstance(tensor, Tensor) and tensor.dtype in _REAL
        dense = real and tensor.layout is torch.strided and not tensor.is_meta
        if not isinstance(name, str) or not dense:
            raise CheckpointError(
                f"the released checkpoint: {shown(name)} is no tensor of real numbers"
            )


def _check_official(model: LaresModel, state_dict: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` unless released weights are those of ``model``: their shapes."""
    weights, used = _tensors(model), set()
    for name, pieces in _official_pieces(model):
        for theirs, view in pieces:
            if theirs not in state_dict:
                raise CheckpointError(f"the released checkpoint has no tensor {theirs!r}")
            shape, wanted = state_dict[theirs].shape, view(weights[name]).shape
            if shape != wanted:
                raise CheckpointError(
                    f"tensor {theirs!r} has shape {tuple(shape)}; the configuration needs "
                    f"{tuple(wanted)}"
                )
            used.add(theirs)
    unused = sorted(set(state_dict) - used)
    if unused:
        raise CheckpointError(
            f"the released checkpoint holds tensors that the configuration has no place for: {unused}"
        )


def load_official_file(path: str | Path, n_items: int | None = None) -> LaresModel:
    """A model from a ``.pth`` file that the released program saved.

    The file is a pickle, of which :func:`~lares.integrations.safe_pickle.load_pickle` reads tensors and
    plain containers; nothing in it can run.

    Args:
        path: the file.
        n_items: catalogue rows; by default those of the item table.

    Raises:
        CheckpointError: the file cannot be read or lacks weights or configuration.
        ConfigError: as :func:`load_official`.
    """
    path = Path(path)
    saved = load_pickle(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise CheckpointError(
            f"{path} holds no 'state_dict'; it is not the released program's file"
        )
    weights = saved["state_dict"]
    config = saved.get("config")
    options = config
    if isinstance(config, Inert):
        state = getattr(config, "state", None)
        options = state.get("final_config_dict") if isinstance(state, dict) else None
    if not isinstance(options, dict):
        raise CheckpointError(f"{path} holds no configuration that can be read")
    try:
        _check_tensors(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    for name, tensor in weights.items():
        if is_larger_than_stored(tensor):
            raise CheckpointError(
                f"{path}: tensor {shown(name)} is larger than what is stored of it"
            )
    table = weights.get("item_embedding.weight")
    if table is None or table.ndim != 2:
        raise CheckpointError(f"{path} has no matrix 'item_embedding.weight'")
    merged = {**options, "n_items": len(table) if n_items is None else n_items}
    return load_official(weights, merged)
