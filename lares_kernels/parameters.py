"""The parameters of a core, by name and shape.

Every tensor is stacked over the layers, so that an op takes the same short list of tensors whatever
the depth of the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lares_kernels.config import CoreConfig

if TYPE_CHECKING:
    from torch import Tensor

_ATTENTION = (
    "qkv_weight",
    "qkv_bias",
    "out_weight",
    "out_bias",
    "attn_norm_weight",
    "attn_norm_bias",
)
_FEED_FORWARD = (
    "up_weight",
    "up_bias",
    "down_weight",
    "down_bias",
    "ffn_norm_weight",
    "ffn_norm_bias",
)
_FILTER_NORM = ("filter_norm_weight", "filter_norm_bias")
_OF_MIXER = {
    "attention": (*_ATTENTION, *_FEED_FORWARD),
    "filter": ("filter_weight", *_FILTER_NORM, *_FEED_FORWARD),
    "bsarec": ("band_scale", *_FILTER_NORM, *_ATTENTION, *_FEED_FORWARD),
}
_KEPT = "_parameter_shapes"
LAYER_PARAMETERS = _OF_MIXER["attention"]


def layer_parameters_of(config: CoreConfig) -> tuple[str, ...]:
    """Names of a layer's parameters."""
    return _OF_MIXER[config.mixer]


def _shapes(config: CoreConfig) -> dict[str, tuple[int, ...]]:
    """Return them, kept with the core: torch.compile warns of the caches of functools."""
    kept: dict[str, tuple[int, ...]] | None = vars(config).get(_KEPT)
    if kept is None:
        kept = _find_shapes(config)
        vars(config)[_KEPT] = kept
    return kept


def _find_shapes(config: CoreConfig) -> dict[str, tuple[int, ...]]:
    n, d, f = config.n_layers, config.d_model, config.d_ff
    layers: dict[str, tuple[int, ...]] = {
        "qkv_weight": (n, 3 * d, d),
        "qkv_bias": (n, 3 * d),
        "out_weight": (n, d, d),
        "out_bias": (n, d),
        "attn_norm_weight": (n, d),
        "attn_norm_bias": (n, d),
        "up_weight": (n, f, d),
        "up_bias": (n, f),
        "down_weight": (n, d, f),
        "down_bias": (n, d),
        "ffn_norm_weight": (n, d),
        "ffn_norm_bias": (n, d),
        "filter_weight": (n, config.window // 2 + 1, d, 2),
        "filter_norm_weight": (n, d),
        "filter_norm_bias": (n, d),
        "band_scale": (n, d),
    }
    shapes = {name: layers[name] for name in layer_parameters_of(config)}
    if config.is_recurrent:
        shapes |= {"core_norm_weight": (d,), "core_norm_bias": (d,)}
    if config.adapter == "gate":
        shapes |= {"gate": ()}
    elif config.adapter == "concat":
        shapes |= {"concat_weight": (d, 2 * d), "concat_bias": (d,)}
    return shapes


def parameter_shapes(config: CoreConfig) -> Mapping[str, tuple[int, ...]]:
    """Shape of every parameter, in the order in which the op takes them.

    Weights are (out, in), as in ``torch.nn.Linear``. Rows of ``qkv_weight`` are the query's, then the
    key's, then the value's; head ``i`` owns columns ``i d/h .. (i+1) d/h`` of each. ``filter_weight``
    holds real and imaginary parts of each frequency and column; ``band_scale`` is BSARec's ``b``.
    """
    return _shapes(config)


def check_parameters(
    config: CoreConfig, parameters: Mapping[str, Tensor], hidden: Tensor
) -> list[Tensor]:
    """The parameters in the op's order; ``ValueError`` unless they are those of ``config``, dense and
    floating point on the device of ``hidden``."""
    shapes = _shapes(config)
    if [*parameters] == [*shapes]:
        ordered = [*parameters.values()]
    elif parameters.keys() == shapes.keys():
        ordered = [parameters[name] for name in shapes]
    else:
        missing = [name for name in shapes if name not in parameters]
        unknown = [name for name in parameters if name not in shapes]
        raise ValueError(
            "parameters do not fit CoreConfig: "
            f"missing {missing or 'none'}, unknown {unknown or 'none'}"
        )
    if [tensor.shape for tensor in ordered] != [*shapes.values()]:
        for tensor, (name, shape) in zip(ordered, shapes.items(), strict=True):
            if tensor.shape != shape:
                raise ValueError(
                    f"parameter {name} has shape {tuple(tensor.shape)}; CoreConfig needs {shape}"
                )
    # One comparison for all, in every call; what is wrong is only looked for where something is.
    like = (hidden.device, hidden.dtype, hidden.layout)
    if [(p.device, p.dtype, p.layout) for p in ordered] != [like] * len(ordered):
        device, _, layout = like
        for name, tensor in zip(shapes, ordered, strict=True):
            if tensor.device != device:
                raise ValueError(f"parameter {name} is on {tensor.device}, but hidden on {device}")
            if not tensor.is_floating_point() or tensor.layout is not layout:
                raise ValueError(
                    f"parameter {name} is {tensor.dtype}, {tensor.layout}; it must be dense and "
                    "floating point"
                )
    return ordered
