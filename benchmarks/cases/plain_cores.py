"""The other cores in padded eager PyTorch, with its Fourier transforms, as one would write them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cases.baselines import PlainCore
from lares_kernels import RecurrentCore
from lares_kernels.spec.parameters import layer_parameters_of


class _WindowCore(PlainCore):
    """What FMLP-Rec's and BSARec's layers share; parameters by name."""

    def forward(self, hidden: Tensor, lengths: Tensor, num_steps: int, state: Tensor) -> Tensor:
        """``last`` (B, d)."""
        self.hides = self.mask(lengths)
        return super().forward(hidden, lengths, num_steps, state)

    def mask(self, lengths: Tensor) -> Tensor | None:
        """What attention takes, where there is any."""
        return None

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.core.config.dropout, self.training)

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.core.config.eps)

    def feed(self, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        inner = F.gelu(F.linear(x, p["up_weight"], p["up_bias"]))
        branch = self.drop(F.linear(inner, p["down_weight"], p["down_bias"]))
        return self.norm(x + branch, p["ffn_norm_weight"], p["ffn_norm_bias"])

    def named(self, weights: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return dict(zip(layer_parameters_of(self.core.config), weights, strict=True))


class FilterCore(_WindowCore):
    """FMLP-Rec's layers."""

    def layer(self, x: Tensor, *weights: Tensor) -> Tensor:
        """One layer, (B, L, d) to (B, L, d)."""
        p = self.named(weights)
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
        spectrum = spectrum * torch.view_as_complex(p["filter_weight"])
        y = torch.fft.irfft(spectrum, n=x.shape[1], dim=1, norm="ortho")
        x = self.norm(x + self.drop(y), p["filter_norm_weight"], p["filter_norm_bias"])
        return self.feed(x, p)


class BsarecCore(_WindowCore):
    """BSARec's layers."""

    def mask(self, lengths: Tensor) -> Tensor:
        places = torch.arange(self.core.config.window)
        return (places[:, None] >= places) & (places < lengths[:, None, None, None])

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rate = self.core.config.attn_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, self.hides, rate)

    def layer(self, x: Tensor, *weights: Tensor) -> Tensor:
        """One layer, (B, L, d) to (B, L, d)."""
        p, config = self.named(weights), self.core.config
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
        kept = spectrum[:, : config.cutoff // 2 + 1]
        low = torch.fft.irfft(kept, n=x.shape[1], dim=1, norm="ortho")
        y = self.drop(low + p["band_scale"].square() * (x - low))
        bands = self.norm(x + y, p["filter_norm_weight"], p["filter_norm_bias"])

        heads = (*x.shape[:-1], 3, config.n_heads, config.head_dim)
        q, k, v = F.linear(x, p["qkv_weight"], p["qkv_bias"]).view(heads).permute(2, 0, 3, 1, 4)
        mixed = self.mix(q, k, v).transpose(1, 2).reshape(x.shape)
        branch = self.drop(F.linear(mixed, p["out_weight"], p["out_bias"]))
        attended = self.norm(x + branch, p["attn_norm_weight"], p["attn_norm_bias"])
        return self.feed(config.band_share * bands + (1 - config.band_share) * attended, p)


def plain_core(core: RecurrentCore) -> PlainCore:
    """The padded eager program of a core."""
    kinds = {"attention": PlainCore, "filter": FilterCore, "bsarec": BsarecCore}
    return cast("PlainCore", kinds[core.config.mixer](core))
