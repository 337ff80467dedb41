"""The same recurrence as somebody would write it without the op: padded eager, compiled, packed.

All read the parameters of a :class:`lares_kernels.RecurrentCore` with adapter ``add``, post-norm and
GELU, and take ``hidden`` (B, L, d) padded on the right, ``lengths`` (B,), the depth, and ``s_0``
(B, L, d).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lares_kernels import CoreConfig, RecurrentCore
from lares_kernels.spec.layout import Layout
from lares_kernels.spec.parameters import layer_parameters_of

# oneDNN's call costs more than it saves on a few rows; MKL's product is taken there.
FEWEST_ROWS_FOR_ONEDNN = 128


def draw_state(config: CoreConfig, like: Tensor) -> Tensor:
    """``s_0`` shaped as ``like``: a normal, cut at three deviations by clamping (cheap)."""
    drawn = torch.randn_like(like).clamp_(-3.0, 3.0)
    return drawn.mul_(config.state_omega * config.state_sigma)


def newest(state: Tensor, lengths: Tensor) -> Tensor:
    """(B, d): the last real token of each padded sequence."""
    return state[torch.arange(len(state), device=state.device), lengths - 1]


class PlainCore(nn.Module):
    """Padded eager PyTorch. Padding lies after the real tokens, so the causal mask hides it.

    Args:
        core: whose parameters to read; they are shared, so gradients reach them. Dropout is on if
            the core is in training mode.
    """

    def __init__(self, core: RecurrentCore) -> None:
        super().__init__()
        config = core.config
        if config.adapter == "concat" or (config.norm, config.activation) != ("post", "gelu"):
            raise ValueError(f"PlainCore has adapter add, post-norm and gelu, not {config}")
        self.core, self.names = core, layer_parameters_of(config)
        self.train(core.training)

    def forward(self, hidden: Tensor, lengths: Tensor, num_steps: int, state: Tensor) -> Tensor:
        """``last`` (B, d)."""
        layers = self.layers()
        for _ in range(num_steps):
            state = self.step(layers, state, hidden)
        return newest(state, lengths)

    def layers(self) -> list[tuple[Tensor, ...]]:
        """The parameters of each layer.

        Taken apart once: an index in every step would add a full-size gradient in every step.
        """
        stacks = [getattr(self.core, name).unbind(0) for name in self.names]
        return list(zip(*stacks, strict=True))

    def step(self, layers: list[tuple[Tensor, ...]], state: Tensor, hidden: Tensor) -> Tensor:
        """One reasoning step, (B, L, d)."""
        core, config = self.core, self.core.config
        norm = (core.core_norm_weight, core.core_norm_bias, config.eps)
        state = F.layer_norm((state + hidden) * 0.5, (config.d_model,), *norm)
        for weights in layers:
            state = self.layer(state, *weights)
        return state

    def layer(self, x: Tensor, *weights: Tensor) -> Tensor:
        """One post-norm layer, (B, L, d) to (B, L, d)."""
        p = self.named(weights)
        return self.feed(self.attend(x, p), p)

    def named(self, weights: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return dict(zip(self.names, weights, strict=True))

    def attend(self, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        """The first half of a layer."""
        mixed = self.mix(*self.heads(x, p)).transpose(1, 2).reshape(x.shape)
        return self.joined(x, F.linear(mixed, p["out_weight"], p["out_bias"]), "attn_norm", p)

    def feed(self, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        """The second half."""
        inner = F.gelu(F.linear(x, p["up_weight"], p["up_bias"]))
        return self.joined(x, F.linear(inner, p["down_weight"], p["down_bias"]), "ffn_norm", p)

    def joined(self, x: Tensor, branch: Tensor, norm: str, p: dict[str, Tensor]) -> Tensor:
        """The normalised sum of ``x`` and a branch under dropout."""
        config, weights = self.core.config, (p[f"{norm}_weight"], p[f"{norm}_bias"])
        x = x + F.dropout(branch, config.dropout, self.training)
        return F.layer_norm(x, x.shape[-1:], *weights, config.eps)

    def heads(self, x: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Query, key and value, (B, h, L, d/h)."""
        config = self.core.config
        heads = (*x.shape[:-1], 3, config.n_heads, config.head_dim)
        found = F.linear(x, p["qkv_weight"], p["qkv_bias"]).view(heads)
        return found.permute(2, 0, 3, 1, 4).unbind(0)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Causal attention, (B, h, L, d/h)."""
        rate = self.core.config.attn_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True)


def compiled_core(core: RecurrentCore) -> PlainCore:
    """:class:`PlainCore` with its layer under ``torch.compile``.

    The layer is nearly all of the work and one program serves every layer and step. The whole
    module compiled was measured to run as fast and to take some four times as long to compile. Eager's
    random numbers are kept: with the generator of compiled code a training step took 1.4 times as
    long.
    """
    module = PlainCore(core)
    torch._dynamo.reset()  # programs of earlier cases count towards the limit of recompilations
    compiled = torch.compile(module.layer, dynamic=False, options={"fallback_random": True})
    module.layer = compiled  # type: ignore[method-assign]
    return module


class PackedCore:
    """Packed rows (N, d), oneDNN products with weights laid out beforehand, no autograd.

    GELU is fused into its product; attention runs on groups of sequences of similar length. Softmax,
    LayerNorm and the carried state stay float32.

    Args:
        core: whose parameters to copy.
        n_rows: for which the weights are laid out.
        dtype: of the products.
    """

    def __init__(self, core: RecurrentCore, n_rows: int, dtype: torch.dtype) -> None:
        self.core, self.dtype = core, dtype
        self.onednn = n_rows >= FEWEST_ROWS_FOR_ONEDNN
        self.products = {
            name: [
                (self.prepare(weight, n_rows), bias.detach().to(dtype))
                for weight, bias in zip(
                    getattr(core, f"{name}_weight"), getattr(core, f"{name}_bias"), strict=True
                )
            ]
            for name in ("qkv", "out", "up", "down")
        }

    def prepare(self, weight: Tensor, n_rows: int) -> Tensor:
        weight = weight.detach().to(self.dtype)
        if not self.onednn:
            return weight
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), n_rows)

    def linear(self, x: Tensor, name: str, layer: int, gelu: bool = False) -> Tensor:
        weight, bias = self.products[name][layer]
        x = x.to(self.dtype)
        if self.onednn:
            after = ("gelu", [], "none") if gelu else ("none", [], "")
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *after)
        product = F.linear(x, weight, bias)
        return F.gelu(product) if gelu else product

    def attention(self, layout: Layout, x: Tensor, layer: int) -> Tensor:
        config = self.core.config
        qkv = self.linear(x, "qkv", layer)
        mixed = torch.empty_like(x, dtype=self.dtype)
        for group, rows in layout.buckets:
            heads = (group.n_sequences, group.max_length, 3, config.n_heads, config.head_dim)
            q, k, v = group.pad(qkv[rows]).view(heads).permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            mixed[rows] = group.unpad(found.transpose(1, 2).flatten(-2))
        return self.linear(mixed, "out", layer)

    def norm(self, x: Tensor, name: str, layer: int | None = None) -> Tensor:
        weight, bias = getattr(self.core, f"{name}_weight"), getattr(self.core, f"{name}_bias")
        if layer is not None:
            weight, bias = weight[layer], bias[layer]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.core.config.eps)

    def __call__(self, hidden: Tensor, lengths: Tensor, num_steps: int, state: Tensor) -> Tensor:
        """``last`` (B, d)."""
        layout = Layout.from_lengths(lengths, torch.zeros_like(lengths))
        rows, state = layout.unpad(hidden), layout.unpad(state)
        for _ in range(num_steps):
            state = self.norm((state + rows) * 0.5, "core_norm")
            for layer in range(self.core.config.n_layers):
                state = self.norm(state + self.attention(layout, state, layer), "attn_norm", layer)
                inner = self.linear(state, "up", layer, gelu=True)
                state = self.norm(state + self.linear(inner, "down", layer), "ffn_norm", layer)
        return state[layout.last_rows]
