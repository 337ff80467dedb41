"""Run a causal ``nn.TransformerEncoder`` on the op with its own weights."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lares_kernels.common.dispatcher import can_be_read, check_when_run
from lares_kernels.function import refine
from lares_kernels.interop.parts import Drops, parts_of, refuse, refuse_hooks, stretches
from lares_kernels.interop.torch_layers import (
    attention_tensors,
    check_attention,
    check_norm,
    kind_of,
    linear_tensors,
    norm_tensors,
    renew_weights,
    require_equal,
    require_type,
    stack_layers,
)
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.seeds import DrawSeeds


class TorchEncoder(nn.Module):
    """Run an ``nn.TransformerEncoder`` or ``nn.TransformerEncoderLayer`` under a causal mask.

    It replaces the encoder in a program: arguments and result are the encoder's.
    The encoder's modules are its own, under the names that they had, so checkpoints of before and
    after fit both. They keep their parameters, which are read at every call, and gradients reach them.
    They keep their modes, too: modules in evaluation mode do not apply dropout. Hooks on them are
    refused at the call, as they would not run.
    Padding rows of the result are zeros, or as what the encoder's last LayerNorm makes of zeros.

    Args:
        encoder: see :func:`from_torch`.
        padding: ``right`` or ``left``, side of padding of ``src_key_padding_mask`` or ``lengths``.
        seed: None draws a seed from torch's generator in every training forward with dropout; a number
            is the first forward's, and each later one takes the next (:class:`DrawSeeds`).
    """

    def __init__(self, encoder: nn.Module, padding: str = "right", seed: int | None = None) -> None:
        super().__init__()
        self.config, self.batch_first = _config(encoder, padding)
        for name, module in encoder.named_children():
            self.add_module(name, module)
        self.seeds = DrawSeeds(seed)
        self.training = encoder.training  # and each part keeps its own mode

    def parameters_of_op(self) -> dict[str, Tensor]:
        """Return the layers' parameters as the op takes them, differentiable."""
        return stack_layers([_tensors(layer) for layer in self._own_layers()])

    def _own_layers(self) -> list[nn.Module]:
        # Of one layer the modules are here, else those of a list of layers.
        return cast("list[nn.Module]", self._modules.get("layers") or [self])

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
        *,
        lengths: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """Compute ``encoder(src, mask, src_key_padding_mask)``.

        Args:
            src: (B, L, d), or (L, B, d) if the encoder is not ``batch_first``.
            mask: (L, L), which must be causal; None needs ``is_causal=True``.
            src_key_padding_mask: (B, L), True (or -inf) at padding, which must be on side ``padding``.
            is_causal: as in torch: True promises that the mask is causal; it is then not checked.
            lengths: (B,), instead of ``src_key_padding_mask``.
            seed: seed of this forward's dropout, instead of the next one.

        Raises:
            ValueError: a mask is neither causal nor padding on that side.
            UnsupportedModuleError: a layer has hooks, or layers have modes that the op cannot follow.
        """
        if src.dim() != 3:
            raise ValueError(
                f"src has shape {tuple(src.shape)}; it must be batched, of 3 dimensions"
            )
        if not self.batch_first:
            src = src.transpose(0, 1)
        batch, length, _ = src.shape
        _check_causal(mask, is_causal, length)
        if src_key_padding_mask is not None:
            if lengths is not None:
                raise ValueError("src_key_padding_mask and lengths were given; give one")
            lengths = _lengths(src_key_padding_mask, (batch, length), self.config.padding)
        layers = self._own_layers()
        for i, layer in enumerate(layers):
            refuse_hooks(parts_of(layer, "" if layer is self else f"layers.{i}"))
        tensors = [_tensors(layer) for layer in layers]
        plan = stretches(self.config, [_drops(layer) for layer in layers], self.training)
        if seed is None and any(stretch.training for stretch in plan):
            seed = self.seeds.take()
        result = src
        for first, end, config, training in plan:
            out = refine(
                config,
                stack_layers(tensors[first:end]),
                result,
                lengths=lengths,
                seed=seed,
                training=training,
                return_state=True,
            )
            result = cast("Tensor", out.state)
        norm = self._modules.get("norm")
        if norm is not None:
            result = norm(result)
        return result if self.batch_first else result.transpose(0, 1)


def from_torch(encoder: nn.Module, padding: str = "right", seed: int | None = None) -> TorchEncoder:
    """Return a module that computes by the op what ``encoder`` computes under a causal mask.

    Pre- and post-norm, relu and gelu, ``batch_first`` or not, with the encoder's last ``norm`` and
    without biases are served. Outputs are equal to rounding, and so are gradients without dropout;
    dropout has the same places and rates, and draws other numbers.

    Args:
        encoder: ``nn.TransformerEncoder`` of ``nn.TransformerEncoderLayer``, or one such layer. Its
            parameters are shared, not copied.
        padding, seed: of :class:`TorchEncoder`.

    Raises:
        UnsupportedModuleError: the op does not compute this module; the message names the attribute.
    """
    return TorchEncoder(encoder, padding, seed)


def _layers(encoder: object) -> tuple[list[Any], str]:
    """Return the layers, and the prefix of their names."""
    if kind_of(encoder) is nn.TransformerEncoderLayer:
        return [encoder], ""
    require_type("encoder", encoder, nn.TransformerEncoder)
    return list(encoder.layers), "layers.{}."  # type: ignore[attr-defined]


def _config(encoder: nn.Module, padding: str) -> tuple[CoreConfig, bool]:
    """Return the configuration that computes ``encoder``, and whether it is ``batch_first``."""
    layers, prefix = _layers(encoder)
    if not layers:
        refuse("encoder.layers", layers, "there must be at least one")
    options = [_layer_options(layer, prefix.format(i)) for i, layer in enumerate(layers)]
    for i, found in enumerate(options):
        for name, value in found.items():
            require_equal(f"{prefix.format(i)}{name}", value, options[0][name], "that of layer 0")
    one = options[0]
    rates = (one["dropout1.p"], one["dropout2.p"])
    if rates[0] not in (0.0, rates[1]):
        refuse(f"{prefix.format(0)}dropout1.p", rates[0], f"it must be 0 or dropout2.p, {rates[1]}")
    config = CoreConfig(
        d_model=one["self_attn.embed_dim"],
        n_heads=one["self_attn.num_heads"],
        d_ff=one["linear1.out_features"],
        n_layers=len(layers),
        adapter="none",
        activation=one["activation"],
        norm="pre" if one["norm_first"] else "post",
        eps=one["norm1.eps"],
        dropout=rates[1],
        dropout_of="both" if rates[0] == rates[1] else "feed-forward",
        attn_dropout=one["self_attn.dropout"],
        inner_dropout=one["dropout.p"],
        padding=padding,
    )
    return config, bool(one["self_attn.batch_first"])


def _layer_options(layer: Any, prefix: str) -> dict[str, Any]:
    """Return the attributes that determine what a layer computes; check the rest."""
    require_type(prefix.rstrip(".") or "encoder", layer, nn.TransformerEncoderLayer)
    check_attention(f"{prefix}self_attn", layer.self_attn)
    d = layer.self_attn.embed_dim
    for name in ("linear1", "linear2"):
        require_type(f"{prefix}{name}", getattr(layer, name), nn.Linear)
    for name in ("norm1", "norm2"):
        check_norm(f"{prefix}{name}", getattr(layer, name), d)
    for name in ("dropout", "dropout1", "dropout2"):
        require_type(f"{prefix}{name}", getattr(layer, name), nn.Dropout)
    if layer.norm1.eps != layer.norm2.eps:
        refuse(f"{prefix}norm2.eps", layer.norm2.eps, f"norm1.eps is {layer.norm1.eps}")
    return {
        "self_attn.embed_dim": d,
        "self_attn.num_heads": layer.self_attn.num_heads,
        "self_attn.batch_first": layer.self_attn.batch_first,
        "self_attn.dropout": layer.self_attn.dropout,
        "linear1.out_features": layer.linear1.out_features,
        "activation": activation_name(f"{prefix}activation", layer.activation),
        "norm_first": layer.norm_first,
        "norm1.eps": layer.norm1.eps,
        "dropout.p": layer.dropout.p,
        "dropout1.p": layer.dropout1.p,
        "dropout2.p": layer.dropout2.p,
    }


def activation_name(where: str, activation: object) -> str:
    """Return the op's name of an activation, given as one of torch's functions or modules."""
    names = {functional.relu: "relu", torch.relu: "relu", functional.gelu: "gelu"}
    names |= {functional.silu: "silu"}
    if isinstance(activation, nn.GELU):
        return "gelu" if activation.approximate == "none" else "gelu_tanh"
    if isinstance(activation, nn.ReLU):
        return "relu"
    if isinstance(activation, nn.SiLU):
        return "silu"
    if activation not in names:
        name = getattr(activation, "__name__", type(activation).__name__)
        refuse(where, name, "it must be relu, gelu or silu of torch")
    return names[activation]  # type: ignore[index]


def _drops(layer: Any) -> Drops:
    """Return which dropouts of a layer are on."""
    return Drops(
        attention=layer.self_attn.training,
        mixed=layer.dropout1.training,
        fed=layer.dropout2.training,
        inner=layer.dropout.training,
    )


def _tensors(layer: Any) -> dict[str, Tensor]:
    """Return a layer's parameters under the op's names, in its order."""
    renew_weights(layer.linear1, layer.linear2)
    up, down = layer.linear1.weight, layer.linear2.weight
    return {
        **attention_tensors(layer.self_attn),
        **norm_tensors(layer.norm1, "attn_norm", up),
        **linear_tensors(up, layer.linear1.bias, "up"),
        **linear_tensors(down, layer.linear2.bias, "down"),
        **norm_tensors(layer.norm2, "ffn_norm", up),
    }


def _check_causal(mask: Tensor | None, is_causal: bool | None, length: int) -> None:
    if mask is None:
        if not is_causal:
            raise ValueError(
                "mask is None: every token would see every other. The op is causal; pass a causal "
                "mask, or is_causal=True"
            )
        return
    if tuple(mask.shape) != (length, length):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must be ({length}, {length})")
    if is_causal:
        return
    hidden, adds = _hides(mask)
    above = torch.ones(length, length, dtype=torch.bool, device=mask.device).triu(1)
    message = "mask is not the causal one, which hides later tokens and nothing else"
    if not can_be_read(mask):
        check_when_run((hidden == above).all() & ~adds.any(), message)
    elif bool(adds.any()) or not torch.equal(hidden, above):
        raise ValueError(message)


def _hides(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a mask hides, and where it does something else, both bool in its shape."""
    if mask.dtype == torch.bool:
        return mask, torch.zeros_like(mask)
    hidden = mask == float("-inf")
    return hidden, mask.masked_fill(hidden, 0.0) != 0


def _lengths(mask: Tensor, shape: tuple[int, int], padding: str) -> Tensor:
    """Return the length of each sequence (B,) from a padding mask."""
    if tuple(mask.shape) != shape:
        raise ValueError(f"src_key_padding_mask has shape {tuple(mask.shape)}; it must be {shape}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(
            f"src_key_padding_mask is {mask.dtype}; it must be bool, or floating point with -inf at "
            "padding"
        )
    hidden, adds = _hides(mask)
    lengths = (~hidden).sum(1)
    place = torch.arange(shape[1], device=mask.device)
    real = place < lengths[:, None]
    if padding != "right":
        real = real.flip(1)
    on_the_side = (
        f"src_key_padding_mask hides tokens that are not padding on the {padding}; "
        "from_torch(padding=...) says the side"
    )
    if not can_be_read(mask):
        check_when_run(
            ~adds.any(), "src_key_padding_mask must be -inf at padding and 0 elsewhere, or bool"
        )
        check_when_run((real != hidden).all(), on_the_side)
        return lengths
    if bool(adds.any()):
        where = tuple(int(i) for i in adds.nonzero()[0])
        raise ValueError(
            f"src_key_padding_mask holds {float(mask[where])} at {where}; a floating-point one must be "
            "-inf at padding and 0 elsewhere"
        )
    if not torch.equal(real, ~hidden):
        raise ValueError(on_the_side)
    return lengths
