"""The other cores in padded eager PyTorch, with its Fourier transforms, as one would write them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cases.baselines import PlainCore
from lares_kernels import RecurrentCore


class FilterCore(PlainCore):
    """FMLP-Rec's layers."""

    def layer(self, x: Tensor, *weights: Tensor) -> Tensor:
        """One layer, (B, L, d) to (B, L, d)."""
        p = self.named(weights)
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
        spectrum = spectrum * torch.view_as_complex(p["filter_weight"])
        y = torch.fft.irfft(spectrum, n=x.shape[1], dim=1, norm="ortho")
        return self.feed(self.joined(x, y, "filter_norm", p), p)


class BsarecCore(PlainCore):
    """BSARec's layers."""

    def forward(self, hidden: Tensor, lengths: Tensor, num_steps: int, state: Tensor) -> Tensor:
        """``last`` (B, d)."""
        places = torch.arange(self.core.config.window)
        self.visible = (places[:, None] >= places) & (places < lengths[:, None, None, None])
        return super().forward(hidden, lengths, num_steps, state)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rate = self.core.config.attn_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, self.visible, rate)

    def layer(self, x: Tensor, *weights: Tensor) -> Tensor:
        """One layer, (B, L, d) to (B, L, d)."""
        p, config = self.named(weights), self.core.config
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
        kept = spectrum[:, : config.cutoff // 2 + 1]
        low = torch.fft.irfft(kept, n=x.shape[1], dim=1, norm="ortho")
        bands = self.joined(x, low + p["band_scale"].square() * (x - low), "filter_norm", p)
        attended = self.attend(x, p)
        return self.feed(config.band_share * bands + (1 - config.band_share) * attended, p)


def plain_core(core: RecurrentCore) -> PlainCore:
    """The padded eager program of a core."""
    kinds = {"attention": PlainCore, "filter": FilterCore, "bsarec": BsarecCore}
    return cast("PlainCore", kinds[core.config.mixer](core))
