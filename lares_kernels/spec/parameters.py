"""Tabulate the parameters of a core; everything that lists them follows from this table.

Names, shapes and order of the op's tensors, the values at the start, and the places in C's call, for
which ``csrc/parameters.py`` writes ``csrc/parameters.inc``. Every tensor of a layer is stacked
over the layers, so that an op takes the same short list of tensors whatever the depth of the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lares_kernels.spec.config import CoreConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Side:
    """Describe one side of a parameter: ``groups`` times a width, each of which kernels may pad
    apart."""

    width: Literal["d", "f", "frequencies", "one"]
    groups: int = 1

    def size(self, config: CoreConfig) -> int:
        """Return its numbers in a core."""
        widths = {
            "d": config.d_model,
            "f": config.d_ff,
            "frequencies": config.window // 2 + 1,
            "one": 1,
        }
        return self.groups * widths[self.width]


@dataclass(frozen=True)
class Parameter:
    """Describe a parameter.

    Attributes:
        name: of the op's tensor.
        sides: its shape, of one layer.
        start: its values at the start: ``normal`` with the standard deviation of the model,
            ``unit normal``, ``ones`` or ``zeros``.
        place: in the arrays of C's call. Parameters that no core has both of may share one.
        where: ``layer``, stacked over the layers; ``core``, of every core with a state; ``adapter``.
        of: the mixers of a layer's parameter, or the adapters of an adapter's, that have it. Empty for
            a layer's that all have.
    """

    name: str
    sides: tuple[Side, ...]
    start: Literal["normal", "unit normal", "ones", "zeros"]
    place: int
    where: Literal["layer", "core", "adapter"]
    of: tuple[str, ...] = ()

    def is_there(self, config: CoreConfig) -> bool:
        """Return True if a core has it."""
        if self.where == "layer":
            return not self.of or config.mixer in self.of
        if self.where == "core":
            return config.is_recurrent
        return config.adapter in self.of

    def shape(self, config: CoreConfig) -> tuple[int, ...]:
        """Return the shape of a core's tensor."""
        layers = (config.n_layers,) if self.where == "layer" else ()
        return (*layers, *(side.size(config) for side in self.sides))


_D, _F, _FREQUENCIES = Side("d"), Side("f"), Side("frequencies")
_QUERY_KEY_VALUE = Side("d", 3)
_STATE_AND_H = Side("d", 2)
_COMPLEX = Side("one", 2)
_FILTER, _BANDS = ("filter",), ("bsarec",)
_WINDOW, _ATTENTION = ("filter", "bsarec"), ("attention", "bsarec")

# In the order in which the op takes them.
PARAMETERS = (
    Parameter("filter_weight", (_FREQUENCIES, _D, _COMPLEX), "normal", 16, "layer", _FILTER),
    Parameter("band_scale", (_D,), "unit normal", 19, "layer", _BANDS),
    Parameter("filter_norm_weight", (_D,), "ones", 17, "layer", _WINDOW),
    Parameter("filter_norm_bias", (_D,), "zeros", 18, "layer", _WINDOW),
    Parameter("qkv_weight", (_QUERY_KEY_VALUE, _D), "normal", 0, "layer", _ATTENTION),
    Parameter("qkv_bias", (_QUERY_KEY_VALUE,), "zeros", 1, "layer", _ATTENTION),
    Parameter("out_weight", (_D, _D), "normal", 2, "layer", _ATTENTION),
    Parameter("out_bias", (_D,), "zeros", 3, "layer", _ATTENTION),
    Parameter("attn_norm_weight", (_D,), "ones", 4, "layer", _ATTENTION),
    Parameter("attn_norm_bias", (_D,), "zeros", 5, "layer", _ATTENTION),
    Parameter("up_weight", (_F, _D), "normal", 6, "layer"),
    Parameter("up_bias", (_F,), "zeros", 7, "layer"),
    Parameter("down_weight", (_D, _F), "normal", 8, "layer"),
    Parameter("down_bias", (_D,), "zeros", 9, "layer"),
    Parameter("ffn_norm_weight", (_D,), "ones", 10, "layer"),
    Parameter("ffn_norm_bias", (_D,), "zeros", 11, "layer"),
    Parameter("core_norm_weight", (_D,), "ones", 12, "core"),
    Parameter("core_norm_bias", (_D,), "zeros", 13, "core"),
    Parameter("gate", (), "zeros", 14, "adapter", ("gate",)),
    Parameter("concat_weight", (_D, _STATE_AND_H), "normal", 14, "adapter", ("concat",)),
    Parameter("concat_bias", (_D,), "zeros", 15, "adapter", ("concat",)),
)
PLACES = 1 + max(parameter.place for parameter in PARAMETERS)  # of C's call

# Found once and kept with the core: torch.compile warns of the caches of functools.
_KEPT_SHAPES, _KEPT_OF_LAYER = "_parameter_shapes", "_layer_parameters"


def parameters_of(config: CoreConfig) -> tuple[Parameter, ...]:
    """Return the parameters that a core has, in the order in which the op takes them."""
    return tuple(parameter for parameter in PARAMETERS if parameter.is_there(config))


def layer_parameters_of(config: CoreConfig) -> tuple[str, ...]:
    """Return the names of a layer's parameters."""
    kept: tuple[str, ...] | None = vars(config).get(_KEPT_OF_LAYER)
    if kept is None:
        kept = tuple(p.name for p in parameters_of(config) if p.where == "layer")
        vars(config)[_KEPT_OF_LAYER] = kept
    return kept


def parameter_shapes(config: CoreConfig) -> Mapping[str, tuple[int, ...]]:
    """Return every parameter's shape by name, in the order in which the op takes them.

    Weights are (out, in), as in ``torch.nn.Linear``. Rows of ``qkv_weight`` are the query's, then the
    key's, then the value's; head ``i`` owns columns ``i d/h .. (i+1) d/h`` of each. ``filter_weight``
    holds real and imaginary parts of each frequency and column; ``band_scale`` is BSARec's ``b``.
    """
    kept: dict[str, tuple[int, ...]] | None = vars(config).get(_KEPT_SHAPES)
    if kept is None:
        kept = {parameter.name: parameter.shape(config) for parameter in parameters_of(config)}
        vars(config)[_KEPT_SHAPES] = kept
    return kept


def check_parameters(
    config: CoreConfig, parameters: Mapping[str, Tensor], hidden: Tensor
) -> list[Tensor]:
    """Return the parameters in the op's order. Raise ``ValueError`` unless they are those of
    ``config``, dense and floating point on the device of ``hidden``."""
    shapes = parameter_shapes(config)
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
