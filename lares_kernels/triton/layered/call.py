"""Lay a call of the layered plan out, and provide its layers' products and launches."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.devices import on
from lares_kernels.gpu.scratch import unfilled, unfilled_like
from lares_kernels.spec.call import Given, GivenBackward, RefineCall
from lares_kernels.spec.parameters import parameter_shapes
from lares_kernels.triton.launch.constants import (
    LAUNCH_OPTIONS,
    Constants,
    compile_time,
    constants,
    padded,
)
from lares_kernels.triton.launch.rounding import round_to_tf32
from lares_kernels.triton.layered.attention_blocks import Blocks, attention_blocks
from lares_kernels.triton.layered.kernels.branches import NO_BRANCH
from lares_kernels.triton.layered.packed_rows import PackedRows, rows_of

_NUMBERS = 2048  # of a block of rows
_MIN_ROWS, _MAX_ROWS = 2, 32
FLAT_BLOCK = 1024
_PRODUCTS = ("qkv", "out", "up", "down", "concat")  # first part of their parameters' names


@cache
def rows_per_program(width: int) -> int:
    """Return the rows that a program of a row kernel takes at once."""
    return max(_MIN_ROWS, min(_MAX_ROWS, _NUMBERS // padded(width)))


class Site(NamedTuple):
    """Address the draws of a layer of a step (-1: the adapter), and name the rows they are for.

    Attributes:
        stream, position: address of the residuals' rows.
        layer: number of the layer.
        step: step that addresses the draws.
        sequences: number of active sequences.
        newest: the only active rows whose output is read; None for all.
    """

    stream: Tensor
    position: Tensor
    layer: int
    step: int
    sequences: int
    newest: Tensor | None


class AttentionTape(NamedTuple):
    """Save what attention's backward needs; ``source`` in the products' type.

    ``query_input`` is the queries' input if it is separate.
    """

    source: Tensor
    query_input: Tensor | None
    qkv: Tensor
    lse: Tensor
    context: Tensor


class FeedForwardTape(NamedTuple):
    """Save what the feed-forward's backward needs, all in the products' type."""

    source: Tensor
    inner: Tensor
    activated: Tensor


class Layered:
    """Lay a call out: its rows, its weights in the products' type, its constants.

    Args:
        call, given: arguments of a backend.
        precision: of the products, as :func:`lares_kernels.triton.launch.constants.constants` takes it.
    """

    def __init__(self, call: RefineCall, given: Given | GivenBackward, precision: str) -> None:
        self.call, self.config = call, call.config
        hidden, state = given.hidden, given.state
        if call.pads_with_zero_tokens:
            columns = torch.arange(call.padded_length, device=hidden.device)
            padding = columns < call.padded_length - call.lengths[:, None]
            hidden = hidden.masked_fill(padding[..., None], 0.0)
        self.hidden = hidden.contiguous()
        self.state = None if state is None else state.contiguous()
        self.device, self.dtype = hidden.device, call.product_dtype
        self.rows: PackedRows = rows_of(call)
        self.c: Constants = constants(
            self.config, rows_per_program(self.config.d_model), call.options.dropout, precision
        )
        self.compiled = compile_time(self.c)  # as kernels take it
        self.blocks = attention_blocks(precision, self.c.head, self.rows.longest)
        self.seed = call.seed_memory
        named = dict(zip(parameter_shapes(self.config), given.parameters, strict=True))
        # Small vectors are read as they come; matrices are rounded once a call.
        self.vectors = {
            name: p.contiguous() for name, p in named.items() if not name.startswith(_PRODUCTS)
        }
        self.products = {
            name: p.to(self.dtype).contiguous()
            for name, p in named.items()
            if name not in self.vectors
        }

    # --- tensors and launches ---

    def new(self, n_rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return unfilled(n_rows, width, dtype=dtype, device=self.device)

    def for_products(self, n_rows: int) -> Tensor | None:
        """Allocate a copy of rows for products to read, or None where those read float32 anyway."""
        if self.dtype == torch.float32:
            return None
        return self.new(n_rows, self.config.d_model, self.dtype)

    def row_grid(self, n_rows: int) -> tuple[int]:
        return (-(-n_rows // self.c.rows),)

    def attention_grid(self, blocks: Blocks, site: Site) -> tuple[int, int, int]:
        return (site.sequences, -(-self.rows.longest // blocks.side), self.config.n_heads)

    def attention_options(self, blocks: Blocks) -> dict[str, Any]:
        sides = {"QUERIES": blocks.side, "KEYS": blocks.side}
        return {**sides, "num_warps": blocks.warps, "C": self.compiled, **LAUNCH_OPTIONS}

    def norm_of(self, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias of one of a layer's LayerNorms, such as ``ffn_norm``."""
        return self.vectors[f"{name}_weight"][layer], self.vectors[f"{name}_bias"][layer]

    def mask_padding(self, x: Tensor) -> Tensor:
        """Return ``x``, the first rows of all, with zeros in padding rows."""
        padding = self.rows.hidden_padding
        return x if padding is None else x.masked_fill(padding[: len(x)], 0.0)

    def queries_keys_values(self, x: Tensor, query_input: Tensor | None, layer: int) -> Tensor:
        """Compute (n, 3 d) in the products' type; queries of ``query_input`` if given."""
        if query_input is None:
            return self.linear(x, "qkv", layer)
        weight, bias = self.products["qkv_weight"][layer], self.products["qkv_bias"][layer]
        d = self.config.d_model
        queries = torch.addmm(bias[:d], query_input, weight[:d].mT)
        return torch.cat((queries, torch.addmm(bias[d:], x, weight[d:].mT)), dim=1)

    def operand(self, x: Tensor) -> Tensor:
        """Return ``x``, which has no other reader, as products of our kernels read it.

        It is rounded in memory: in a kernel the operands of all its products would be held in
        registers.
        """
        return round_to_tf32(x) if self.c.tf32 else x

    def linear(self, x: Tensor, name: str, layer: int) -> Tensor:
        """Compute ``x W^T + b`` in the products' type."""
        weight = self.products[f"{name}_weight"][layer]
        return torch.addmm(self.products[f"{name}_bias"][layer], x, weight.mT)

    # --- one step ---

    def first_state(self) -> Tensor:
        """Return ``s_0`` (N, d) float32."""
        from lares_kernels.triton.layered.kernels.rows import first_state_kernel

        rows, config = self.rows, self.config
        out = self.new(rows.n_rows, config.d_model)
        first_state_kernel[self.row_grid(rows.n_rows)](
            self.state,
            rows.state_row,
            rows.stream,
            rows.position,
            out,
            self.call.state_scale,
            rows.n_rows,
            self.seed,
            DRAWN=not self.call.options.zero_state,
            C=self.compiled,
        )
        return self.mask_padding(out)

    def joined(self, state: Tensor, n_rows: int, kept: Tensor | None) -> Tensor:
        """Return ``[s ; H]`` (n, 2 d) for adapter ``concat``."""
        from lares_kernels.triton.layered.kernels.rows import join_kernel

        both = self.new(n_rows, 2 * self.config.d_model, self.dtype)
        join_kernel[self.row_grid(n_rows)](
            state, self.hidden, self.rows.hidden_row, kept, both, n_rows, C=self.compiled
        )
        return both

    def step_input(self, state: Tensor, n_rows: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute ``LayerNorm_core(adapter(s, H))`` of the first ``n_rows``: float32, and for
        products.

        ``kept`` gets a copy of ``s``.
        """
        from lares_kernels.triton.layered.kernels.rows import adapt_kernel

        out, rounded = self.new(n_rows, self.config.d_model), self.for_products(n_rows)
        weight, bias = self.vectors["core_norm_weight"], self.vectors["core_norm_bias"]
        if self.c.concat:
            adapted = self.concat_product(self.joined(state, n_rows, kept))
            self.residual(
                adapted, None, (weight, bias), None, out, rounded, self.site(-1, 0), NO_BRANCH
            )
        else:
            adapt_kernel[self.row_grid(n_rows)](
                state,
                self.hidden,
                self.rows.hidden_row,
                self.vectors.get("gate"),
                weight,
                bias,
                kept,
                out,
                rounded,
                n_rows,
                C=self.compiled,
            )
        out = self.mask_padding(out)
        return out, out if rounded is None else self.mask_padding(rounded)

    def concat_product(self, both: Tensor) -> Tensor:
        weight = self.products["concat_weight"]
        return torch.addmm(self.products["concat_bias"], both, weight.mT)

    def residual(
        self,
        x: Tensor,
        branch: Tensor | None,
        norm: tuple[Tensor, Tensor] | None,
        total: Tensor | None,
        out: Tensor | None,
        rounded: Tensor | None,
        site: Site,
        which: int,
        blended: Tensor | None = None,
    ) -> None:
        """Launch :func:`residual_kernel`."""
        from lares_kernels.triton.layered.kernels.rows import residual_kernel

        weight, bias = norm or (None, None)
        residual_kernel[self.row_grid(len(x))](
            *(x, branch, weight, bias, blended, total, out, rounded),
            *(site.stream, site.position, len(x), site.layer, site.step, self.seed),
            BRANCH=which,
            SHARE=self.config.band_share,
            C=self.compiled,
        )

    def normalised(self, x: Tensor, name: str, layer: int) -> tuple[Tensor | None, Tensor]:
        """Compute LayerNorm of ``x``: float32 (None where nothing reads that), and for products."""
        rounded = self.for_products(len(x))
        out = None
        if rounded is None or self.c.query:
            out = self.new(len(x), self.config.d_model)
        norm, site = self.norm_of(name, layer), self.site(layer, 0)
        self.residual(x, None, norm, None, out, rounded, site, NO_BRANCH)
        return out, out if rounded is None else rounded  # type: ignore[return-value]

    def attention(
        self, source: Tensor, query_input: Tensor | None, site: Site, taped: bool
    ) -> tuple[Tensor, AttentionTape | None]:
        """Compute ``W_o (Dropout_attn(A) V) + b_o`` in the products' type; its tape if ``taped``.

        Args:
            source, query_input: (n, d) in the products' type; queries are of the second if given.
            site: of the layer.
            taped: return the tape too.
        """
        from lares_kernels.triton.layered.kernels.attention import attention_kernel

        qkv = self.operand(self.queries_keys_values(source, query_input, site.layer))
        lse = self.new(self.config.n_heads, len(source)) if taped else None
        context = self.new(len(qkv), self.config.d_model, self.dtype)
        blocks = self.blocks[0]
        attention_kernel[self.attention_grid(blocks, site)](
            qkv,
            context,
            lse,
            self.rows.starts,
            self.rows.keys,
            self.rows.streams,
            len(qkv),
            site.layer,
            site.step,
            self.seed,
            **self.attention_options(blocks),
        )
        mixed = context if site.newest is None else context.index_select(0, site.newest)
        branch = self.linear(mixed, "out", site.layer)
        if lse is None:
            return branch, None
        return branch, AttentionTape(source, query_input, qkv, lse, context)

    def feed_forward(
        self, source: Tensor, site: Site, taped: bool
    ) -> tuple[Tensor, FeedForwardTape | None]:
        """Compute ``W_2 Dropout_inner(act(W_1 x + b_1)) + b_2``; its tape if ``taped``."""
        from lares_kernels.triton.layered.kernels.rows import activate_kernel

        inner = self.linear(source, "up", site.layer)
        activated = unfilled_like(inner)
        grid = (-(-inner.numel() // FLAT_BLOCK),)
        activate_kernel[grid](
            *(inner, None, activated, inner.numel()),
            *self.inner_draws(site),
            BLOCK=FLAT_BLOCK,
            C=self.compiled,
        )
        branch = self.linear(activated, "down", site.layer)
        return branch, FeedForwardTape(source, inner, activated) if taped else None

    def inner_draws(self, site: Site) -> tuple[Any, ...]:
        """Return the arguments with which kernels address the draws inside the feed-forward."""
        where = (site.stream, site.position, self.config.d_ff, site.layer, site.step)
        return (*where, self.seed)

    def site(self, layer: int, step: int, newest: Tensor | None = None) -> Site:
        """Return the site of all rows, or of those ``newest``."""
        stream, position = self.rows.stream, self.rows.position
        if newest is not None:
            stream, position = stream[newest], position[newest]
        sequences = self.rows.sequences[max(step - 1, 0)]
        return Site(stream, position, layer, self.call.rng_step(step), sequences, newest)

    def newest_alone(self, step: int) -> Tensor | None:
        """Return the newest row of each active sequence, (s,) int64, where a step's output is read
        there alone.

        Sequences active at the greatest depth all end there.
        """
        if self.call.options.wants_state or step not in (0, self.call.options.max_steps):
            return None
        return self.rows.ends[: self.rows.sequences[-1]]

    def written(self, before: Tensor | None, refined: Tensor, step: int) -> Tensor:
        """Return all rows (N, d) after a step: those refined, and the others unchanged."""
        newest = self.newest_alone(step)
        if newest is None and len(refined) == self.rows.n_rows:
            return refined
        if before is None:
            before = self.new(self.rows.n_rows, self.config.d_model)
        if newest is None:
            before[: len(refined)] = refined
            return before
        return before.index_copy_(0, newest, refined)

    def hidden_rows(self) -> tuple[Tensor, Tensor]:
        """Return ``H`` of every row, float32 and for products: the input of a core without
        state."""
        flat = self.hidden.reshape(-1, self.config.d_model)
        x = flat.index_select(0, self.rows.hidden_row).to(torch.float32)
        return x, x.to(self.dtype)

    def running(self, step: int) -> int:
        """Count the rows that run at a step."""
        return self.rows.rows[step - 1]

    def on_device(self) -> contextlib.ExitStack:
        """Direct launches inside to the call's device, with products in the requested type."""
        stack = contextlib.ExitStack()
        stack.enter_context(on(self.device))
        stack.enter_context(torch.autocast(self.device.type, enabled=False))
        return stack
