"""What somebody would run on a GPU without the op: padded eager, compiled, packed.

===================  ===============================================================================
``explicit``         padded eager as RecBole writes it: three products, scores, mask, softmax
``plain``            padded eager with ``scaled_dot_product_attention``
``step-compiled``    ``plain`` with its step under ``torch.compile``
``step-autotuned``   the same with ``mode="max-autotune-no-cudagraphs"``
``whole-reduced``    ``plain`` whole, all steps, with ``mode="reduce-overhead"`` (CUDA graphs)
``varlen``           packed rows, variable-length attention, eager
``varlen-compiled``  the same with its step under ``torch.compile``
===================  ===============================================================================

Where a step is compiled one program serves every depth; compiling the whole adds one fusion from step
to step. :mod:`benchmarks.core.clock` can capture any of them, backward included, as one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cases.baselines import PlainCore
from lares_kernels import RecurrentCore
from lares_kernels.spec.layout import Layout

_MODES = {
    "step-compiled": "default",
    "step-autotuned": "max-autotune-no-cudagraphs",
    "whole-reduced": "reduce-overhead",
    "varlen-compiled": "default",
}
PEERS = ("explicit", "varlen", *_MODES)
COMPILED = tuple(_MODES)
_FLASH_TYPES = (torch.bfloat16, torch.float16)
_PROGRAMS_OF_A_FUNCTION = 64
_CAUSAL = 1  # custom_mask_type of the memory-efficient kernel


class ExplicitCore(PlainCore):
    """Padded eager PyTorch with attention written out, as the released program has it."""

    def forward(self, hidden: Tensor, lengths: Tensor, num_steps: int, state: Tensor) -> Tensor:
        """``last`` (B, d)."""
        width = hidden.shape[1]
        places = torch.arange(width, device=hidden.device)
        visible = (places[None, :] <= places[:, None]) & (places < lengths[:, None])[:, None, :]
        self.mask = torch.where(visible, 0.0, -10000.0)[:, None]  # (B, 1, L, L)
        return super().forward(hidden, lengths, num_steps, state)

    def heads(self, x: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Query, key and value of three products."""
        config = self.core.config
        heads = (*x.shape[:-1], config.n_heads, config.head_dim)
        parts = zip(p["qkv_weight"].chunk(3), p["qkv_bias"].chunk(3), strict=True)
        return tuple(F.linear(x, *each).view(heads).transpose(1, 2) for each in parts)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        config = self.core.config
        scores = query @ key.transpose(-1, -2) / config.head_dim**0.5 + self.mask
        rate = config.attn_dropout if self.training else 0.0
        return F.dropout(scores.softmax(-1), rate) @ value


class PackedVarlen(PlainCore):
    """Packed rows and PyTorch's own attention over sequences of different lengths.

    The rows are packed once a call. FlashAttention takes bf16, the memory-efficient kernel float32; on
    a CPU, which has neither for packed rows, the mask is block-diagonal.

    Args:
        core: whose parameters to read.
        lengths: (B,); the rows' places are worked out here, as a data loader would.
    """

    def __init__(self, core: RecurrentCore, lengths: Tensor) -> None:
        super().__init__(core)
        self.layout = Layout.from_lengths(lengths, torch.zeros_like(lengths))
        offsets = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        self.offsets, self.longest = offsets, self.layout.max_length
        sequence = self.layout.sequence
        if lengths.device.type == "cpu":
            order = torch.arange(len(sequence))
            self.visible = (sequence[:, None] == sequence) & (order[:, None] >= order)

    def forward(self, hidden: Tensor, lengths: Tensor, num_steps: int, state: Tensor) -> Tensor:
        """``last`` (B, d)."""
        places = self.layout.sequence * hidden.shape[1] + self.layout.position
        rows, state = hidden.flatten(0, 1)[places], state.flatten(0, 1)[places]
        layers = self.layers()
        for _ in range(num_steps):
            state = self.step(layers, state, rows)
        return state[self.layout.last_rows]

    def layer(self, x: Tensor, *weights: Tensor) -> Tensor:
        """One post-norm layer on rows (N, d): the padded one's with a batch of one."""
        return super().layer(x[None], *weights)[0]

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Causal attention within each sequence, (1, h, N, d/h)."""
        rate = self.core.config.attn_dropout if self.training else 0.0
        if query.device.type == "cpu":
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=self.visible, dropout_p=rate
            )
        q, k, v = (part.transpose(1, 2) for part in (query, key, value))
        lengths = (self.offsets, self.offsets, self.longest, self.longest)
        if q.dtype in _FLASH_TYPES:
            q, k, v = q[0], k[0], v[0]
            mixed = torch.ops.aten._flash_attention_forward(
                q, k, v, *lengths, rate, True, False, scale=self.core.config.head_dim**-0.5
            )[0][None]
        else:
            mixed = torch.ops.aten._efficient_attention_forward(
                q, k, v, None, *lengths, rate, _CAUSAL, torch.is_grad_enabled()
            )[0]
        return mixed.transpose(1, 2)


def peer_core(name: str, core: RecurrentCore, lengths: Tensor) -> Callable[..., Tensor]:
    """One of ``PEERS``, to be called like :class:`PlainCore`."""
    if name == "explicit":
        return ExplicitCore(core)
    module = PackedVarlen(core, lengths) if name.startswith("varlen") else PlainCore(core)
    if name not in _MODES:
        return module
    # All peers of a race are programs of the same few functions; beyond the limit they run eagerly.
    torch._dynamo.config.cache_size_limit = _PROGRAMS_OF_A_FUNCTION
    if name != "whole-reduced":
        step = torch.compile(module.step, dynamic=False, mode=_MODES[name])
        module.step = step  # type: ignore[method-assign]
        return module
    whole = torch.compile(module, dynamic=False, mode=_MODES[name])

    def reduced(*arguments: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return whole(*arguments)

    return reduced
