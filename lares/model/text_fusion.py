"""Text features fused into the item embedding (TedRec, Xu et al., CIKM 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lares.model.config import LaresConfig
from lares_kernels.spec.noise import Site, normal_rows, quantised_rate, row_keep, site_word

_LEAST_NOISE = 0.01


def circular_product(x: Tensor, spectrum: Tensor) -> Tensor:
    """``irfft(rfft(x) * spectrum)`` along dimension 1 of (B, L, d), ``norm="ortho"``."""
    product = torch.fft.rfft(x, dim=1, norm="ortho") * spectrum
    y: Tensor = torch.fft.irfft(product, n=x.shape[1], dim=1, norm="ortho")
    return y


class TextFusion(nn.Module):
    """Items' text features through a mixture of experts, fused with the item embedding.

    Expert ``i`` is ``W_i (Dropout(text) - b_i)`` with ``b_i`` by position; experts are weighed by
    ``softmax(text W_gate + noise)``, with noise in training only. With item embedding ``e`` and mixed
    text ``m``, ``c1 = irfft(rfft(e) W)`` and ``c2 = irfft(rfft(m) rfft(e))`` along the window,
    ``x = 2 (c1 sigmoid(g1(c1)) + c2 sigmoid(g2(c2)))``.

    ``features`` (V, D) is a buffer: it is saved with the weights and not trained.

    Args:
        config: of the model, with ``text_width``.
    """

    features: Tensor

    def __init__(self, config: LaresConfig) -> None:
        super().__init__()
        self.config = config
        experts, width = config.text_experts, config.text_width
        window, d = config.max_length, config.d_model
        self.register_buffer("features", torch.zeros(config.n_items, width))
        self.gate_weight = nn.Parameter(torch.empty(width, experts))
        self.noise_weight = nn.Parameter(torch.empty(width, experts))
        self.expert_weight = nn.Parameter(torch.empty(experts, d, width))
        self.expert_bias = nn.Parameter(torch.empty(experts, window, width))
        self.filter_weight = nn.Parameter(torch.empty(window // 2 + 1, d, 2))
        self.item_gate = nn.Linear(d, 1)
        self.fusion_gate = nn.Linear(d, 1)

    @torch.no_grad()
    def reset_parameters(self, std: float) -> None:
        """Draw the weights anew: normal; zeros in the experts' gates and biases."""
        for weight in (self.expert_weight, self.filter_weight):
            weight.normal_(0.0, std)
        for zeros in (self.gate_weight, self.noise_weight, self.expert_bias):
            zeros.zero_()
        for gate in (self.item_gate, self.fusion_gate):
            gate.weight.normal_(0.0, std)
            gate.bias.zero_()

    def forward(
        self, embedded: Tensor, item_seq: Tensor, streams: Tensor, seed: int | Tensor
    ) -> Tensor:
        """Fused embeddings (B, L, d).

        Args:
            embedded: (B, L, d) item embeddings of whole windows, padding too.
            item_seq: (B, L) their ids.
            streams: (B,) int64 random-number stream of each sequence.
            seed: 64-bit key of dropout and noise.
        """
        text = self.mix(self.features[item_seq], streams, seed)
        # Fourier transforms exist in single and double precision alone.
        dtype = torch.float64 if embedded.dtype == torch.float64 else torch.float32
        e, text = embedded.to(dtype), text.to(dtype)
        filtered = circular_product(e, torch.view_as_complex(self.filter_weight.to(dtype)))
        fused = circular_product(text, torch.fft.rfft(e, dim=1, norm="ortho"))
        filtered, fused = filtered.to(embedded.dtype), fused.to(embedded.dtype)
        x: Tensor = 2.0 * (
            filtered * torch.sigmoid(self.item_gate(filtered))
            + fused * torch.sigmoid(self.fusion_gate(fused))
        )
        return x

    def mix(self, text: Tensor, streams: Tensor, seed: int | Tensor) -> Tensor:
        """Text (B, L, D) through the experts, (B, L, d)."""
        size, length, _ = text.shape
        rows = streams.repeat_interleave(length)
        positions = torch.arange(length, device=text.device).repeat(size)
        scores = text @ self.gate_weight
        if self.training:
            site = site_word(Site.TEXT_GATE)
            normal = normal_rows(rows, positions, site, self.config.text_experts, seed)
            scale = functional.softplus(text @ self.noise_weight) + _LEAST_NOISE
            scores = scores + normal.view_as(scores).to(scores.dtype) * scale
        rate = quantised_rate(self.config.text_dropout)
        shifts = self.expert_bias @ self.expert_weight.mT  # (experts, L, d)
        mixed = torch.zeros(1, dtype=text.dtype, device=text.device)
        for expert, share in enumerate(scores.softmax(-1).unbind(-1)):
            given = text
            if self.training and rate > 0.0:
                site = site_word(Site.TEXT, layer=expert)
                keep = row_keep(rows, positions, site, rate, text.shape[-1], seed)
                given = text * (keep.view_as(text).to(text.dtype) / (1.0 - rate))
            found = given @ self.expert_weight[expert].mT - shifts[expert, :length]
            mixed = mixed + share[..., None] * found
        return mixed
