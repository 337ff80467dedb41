"""Read parameters of foreign transformer layers as the op takes them.

Nothing is copied permanently: stacking is an operation that autograd differentiates, so gradients reach
the modules' own parameters, and optimisers, checkpoints and ``state_dict`` keep working with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lares_kernels.interop.parts import UnsupportedModuleError as UnsupportedModuleError
from lares_kernels.interop.parts import makes_weights, refuse, refuse_hooks

LayerTensors = Mapping[str, Tensor]


def require_type(where: str, module: object, *types: type) -> None:
    """Raise unless ``module`` is of exactly one of ``types`` and carries no hooks.

    A subclass may compute anything, and a hook would not run, unless it makes weights, which
    :func:`renew_weights` has it do.
    """
    if kind_of(module) not in types:
        names = " or ".join(f"{t.__module__}.{t.__name__}" for t in types)
        refuse(where, type(module).__name__, f"it must be {names} itself")
    assert isinstance(module, nn.Module)
    refuse_hooks([(where, module)])


def kind_of(module: object) -> type:
    """Return a module's type; for a parametrised module, the type that it had before."""
    kind = type(module)
    parametrised = "parametrizations" in getattr(module, "_modules", ())
    return kind.__bases__[0] if parametrised else kind


def renew_weights(*modules: nn.Module) -> None:
    """Recompute the weights that hooks make before a forward, which is not called here.

    These are ``nn.utils.weight_norm``, ``spectral_norm`` and ``prune``; parametrised weights are made
    as they are read.
    """
    for module in modules:
        if module._forward_pre_hooks:
            for hook in module._forward_pre_hooks.values():
                if makes_weights(hook):
                    hook(module, None)


def require_equal(where: str, found: object, wanted: object, of: str) -> None:
    """Raise unless an attribute is the same as in layer 0."""
    if found != wanted:
        refuse(where, found, f"{of} is {wanted!r}, and all layers must be alike")


def norm_tensors(norm: nn.LayerNorm, name: str, like: Tensor) -> dict[str, Tensor]:
    """Return a LayerNorm's weight and bias; the neutral value for one that is missing."""
    renew_weights(norm)
    weight = like.new_ones(norm.normalized_shape) if norm.weight is None else norm.weight
    bias = like.new_zeros(norm.normalized_shape) if norm.bias is None else norm.bias
    return {f"{name}_weight": weight, f"{name}_bias": bias}


def linear_tensors(weight: Tensor, bias: Tensor | None, name: str) -> dict[str, Tensor]:
    """Return a product's weight (out, in) and bias; zeros for a missing bias."""
    return {
        f"{name}_weight": weight,
        f"{name}_bias": weight.new_zeros(weight.shape[0]) if bias is None else bias,
    }


def attention_tensors(attention: nn.MultiheadAttention) -> dict[str, Tensor]:
    """Return the tensors of a :class:`torch.nn.MultiheadAttention` that passed
    :func:`check_attention`."""
    out = attention.out_proj
    renew_weights(attention, out)
    return {
        **linear_tensors(attention.in_proj_weight, attention.in_proj_bias, "qkv"),
        **linear_tensors(out.weight, out.bias, "out"),
    }


def check_attention(where: str, attention: object) -> None:
    """Raise unless the op can do what ``attention`` does with one input and a causal mask."""
    require_type(where, attention, nn.MultiheadAttention)
    assert isinstance(attention, nn.MultiheadAttention)
    d = attention.embed_dim
    for name in ("kdim", "vdim"):
        if getattr(attention, name) != d:
            refuse(f"{where}.{name}", getattr(attention, name), f"it must be embed_dim, {d}")
    for name in ("bias_k", "bias_v"):
        if getattr(attention, name) is not None:
            refuse(f"{where}.{name}", "a parameter", "the op has no key or value of its own")
    if attention.add_zero_attn:
        refuse(f"{where}.add_zero_attn", True, "the op has no key of zeros")


def check_norm(where: str, norm: object, width: int) -> None:
    """Raise unless ``norm`` is a LayerNorm over rows of ``width``."""
    require_type(where, norm, nn.LayerNorm)
    shape = tuple(norm.normalized_shape)  # type: ignore[attr-defined]
    if shape != (width,):
        refuse(f"{where}.normalized_shape", shape, f"it must be ({width},)")


def stack_layers(layers: Sequence[LayerTensors]) -> dict[str, Tensor]:
    """Stack each layer's parameters to the op's, by the names of ``parameter_shapes``."""
    if len(layers) == 1:
        return {name: tensor.unsqueeze(0) for name, tensor in layers[0].items()}
    return {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}
