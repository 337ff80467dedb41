"""The layered plan: for calls whose tile does not fit a program, layer by layer and step by step.

Large products are PyTorch's (cuBLAS, hipBLASLt); attention, adapter, residual, dropout, LayerNorm and
activation are kernels of ours. Nothing is padded: rows are packed (``layered_rows.py``) and attention
takes sequences of any length. One state a step is kept; ``layered_backward.py`` recomputes the rest.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.call import RefineCall, Request
from lares_kernels.parameters import parameter_shapes
from lares_kernels.triton.constants import FUSES, Constants, compile_time, constants, padded
from lares_kernels.triton.fused import on, seed_halves
from lares_kernels.triton.layered_rows import PackedRows, pack_rows

MOST_WIDTH = 1024
MOST_HEAD = 256
_NUMBERS = 2048  # of a block of rows
_LEAST_ROWS, _MOST_ROWS = 2, 32
FLAT_BLOCK = 1024
_PRODUCTS = ("qkv", "out", "up", "down", "concat")  # first part of their parameters' names


def layered_reason(request: Request) -> str | None:
    """None if the layered plan can serve such calls, else why not."""
    config = request.config
    if config.d_model > MOST_WIDTH:
        return f"d_model is {config.d_model}; it serves up to {MOST_WIDTH}"
    if config.head_dim > MOST_HEAD:
        return f"heads are {config.head_dim} wide; it serves up to {MOST_HEAD}"
    return None


def layered_text(call: RefineCall) -> str:
    """The plan in a sentence."""
    return (
        f"Triton kernels layer by layer, products by PyTorch in {call.product_dtype}, "
        f"{call.n_rows} packed tokens of {call.n_sequences} sequences, one state a step kept"
    )


class Blocks(NamedTuple):
    """How attention is cut: queries, and keys, of a block; warps of a program."""

    side: int
    warps: int


# By precision of the products and padded width of a head: forward's and backward's blocks. Larger ones
# spill registers on some family of GPUs; products in ieee float32 are taken without tensor cores.
_BLOCKS = {
    "half": {
        32: (Blocks(64, 4), Blocks(64, 4)),
        64: (Blocks(64, 4), Blocks(32, 4)),
        128: (Blocks(32, 4), Blocks(32, 4)),
        256: (Blocks(32, 4), Blocks(16, 8)),
    },
    "tf32": {
        32: (Blocks(32, 4), Blocks(32, 4)),
        64: (Blocks(32, 4), Blocks(32, 4)),
        128: (Blocks(32, 8), Blocks(16, 4)),
        256: (Blocks(16, 4), Blocks(16, 8)),
    },
    "ieee": {
        32: (Blocks(32, 4), Blocks(16, 4)),
        64: (Blocks(32, 4), Blocks(16, 4)),
        128: (Blocks(16, 4), Blocks(16, 4)),
        256: (Blocks(16, 4), Blocks(16, 4)),
    },
}


@cache
def attention_blocks(precision: str, head: int, longest: int) -> tuple[Blocks, Blocks]:
    """Forward's and backward's blocks for padded heads of ``head`` and sequences up to ``longest``."""
    forward, backward = (
        _shrunk(blocks, padded(longest), precision == "half" and head <= 32)
        for blocks in _BLOCKS[precision][max(head, 32)]
    )
    return forward, backward


def _shrunk(blocks: Blocks, longest: int, small: bool) -> Blocks:
    """Blocks no larger than the sequences; ``small`` ones need fewer warps."""
    side = min(blocks.side, longest)
    return Blocks(side, 2 if small and side <= 32 else blocks.warps)


@cache
def row_rows(width: int) -> int:
    """Rows that a program of a row kernel takes at once."""
    return max(_LEAST_ROWS, min(_MOST_ROWS, _NUMBERS // padded(width)))


class Site(NamedTuple):
    """Where a residual's draws are addressed: its rows' streams and positions, layer and step."""

    stream: Tensor
    position: Tensor
    layer: int
    step: int


@dataclass(eq=False)
class LayerTape:
    """What a layer's recomputation leaves for its backward; rows are those that run.

    ``*_in`` are what products read, in their type; ``*_sum`` the residual sums, float32. From
    ``attn_sum`` on rows are those of ``site``, which in a sequence's last layer are its newest alone;
    ``newest`` then says which, among all.
    """

    site: Site
    newest: Tensor | None
    x: Tensor
    qkv_in: Tensor
    qkv: Tensor
    lse: Tensor
    context: Tensor
    attn_sum: Tensor
    up_in: Tensor
    inner: Tensor
    activated: Tensor
    ffn_sum: Tensor


class Layered:
    """A call laid out: its rows, its weights in the products' type, its constants.

    Args:
        call, hidden, state, parameters: as a backend gets them.
        precision: of the products, as :func:`lares_kernels.triton.constants.constants` takes it.
    """

    def __init__(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: list[Tensor],
        precision: str,
    ) -> None:
        self.call, self.config = call, call.config
        self.hidden = hidden.contiguous()
        self.state = None if state is None else state.contiguous()
        self.device, self.dtype = hidden.device, call.product_dtype
        self.rows: PackedRows = pack_rows(call)
        self.c: Constants = constants(
            self.config, row_rows(self.config.d_model), call.dropout, precision
        )
        self.compiled = compile_time(self.c)  # as kernels take it
        self.blocks = attention_blocks(precision, self.c.head, self.rows.longest)
        self.seed = seed_halves(call.seed)
        named = dict(zip(parameter_shapes(self.config), parameters, strict=True))
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
        return torch.empty(n_rows, width, dtype=dtype, device=self.device)

    def for_products(self, n_rows: int) -> Tensor | None:
        """A second place for rows that products read, or None where those read float32 anyway."""
        if self.dtype == torch.float32:
            return None
        return self.new(n_rows, self.config.d_model, self.dtype)

    def row_grid(self, n_rows: int) -> tuple[int]:
        return (-(-n_rows // self.c.rows),)

    def attention_grid(self, blocks: Blocks, step: int) -> tuple[int, int, int]:
        sequences = self.rows.sequences[max(step - 1, 0)]
        return (sequences, -(-self.rows.longest // blocks.side), self.config.n_heads)

    def attention_options(self, blocks: Blocks) -> dict[str, Any]:
        options = {"QUERIES": blocks.side, "KEYS": blocks.side, "num_warps": blocks.warps, **FUSES}
        return {**options, "C": self.compiled}

    def norm_of(self, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer's LayerNorm ``attn_norm`` or ``ffn_norm``."""
        return self.vectors[f"{name}_weight"][layer], self.vectors[f"{name}_bias"][layer]

    def linear(self, x: Tensor, name: str, layer: int) -> Tensor:
        """``x W^T + b`` in the products' type."""
        weight = self.products[f"{name}_weight"][layer]
        return torch.addmm(self.products[f"{name}_bias"][layer], x, weight.mT)

    # --- one step ---

    def first_state(self) -> Tensor:
        """``s_0`` (N, d) float32."""
        from lares_kernels.triton.kernels.layered_rows import first_state_kernel

        rows, config = self.rows, self.config
        out = self.new(rows.n_rows, config.d_model)
        first_state_kernel[self.row_grid(rows.n_rows)](
            self.state,
            rows.state_row,
            rows.stream,
            rows.position,
            out,
            config.state_omega * config.state_sigma,
            rows.n_rows,
            *self.seed,
            DRAWN=not self.call.zero_state,
            C=self.compiled,
        )
        return out

    def joined(self, state: Tensor, n_rows: int, kept: Tensor | None) -> Tensor:
        """``[s ; H]`` (n, 2 d) of adapter ``concat``."""
        from lares_kernels.triton.kernels.layered_rows import join_kernel

        both = self.new(n_rows, 2 * self.config.d_model, self.dtype)
        join_kernel[self.row_grid(n_rows)](
            state, self.hidden, self.rows.hidden_row, kept, both, n_rows, C=self.compiled
        )
        return both

    def step_input(self, state: Tensor, n_rows: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """``LayerNorm_core(adapter(s, H))`` of the first ``n_rows``: float32, and for products.

        ``kept`` gets a copy of ``s``.
        """
        from lares_kernels.triton.kernels.layered_rows import adapt_kernel

        out, rounded = self.new(n_rows, self.config.d_model), self.for_products(n_rows)
        weight, bias = self.vectors["core_norm_weight"], self.vectors["core_norm_bias"]
        if self.c.concat:
            adapted = self.concat_product(self.joined(state, n_rows, kept))
            self.residual(adapted, None, (weight, bias), None, out, rounded, self.site(-1, 0), -1)
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
        return out, out if rounded is None else rounded

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
    ) -> None:
        """Launch :func:`residual_kernel`."""
        from lares_kernels.triton.kernels.layered_rows import residual_kernel

        weight, bias = norm or (None, None)
        residual_kernel[self.row_grid(len(x))](
            x,
            branch,
            weight,
            bias,
            total,
            out,
            rounded,
            site.stream,
            site.position,
            len(x),
            site.layer,
            site.step,
            *self.seed,
            BRANCH=which,
            C=self.compiled,
        )

    def normalised(self, x: Tensor, name: str, layer: int) -> Tensor:
        """LayerNorm of ``x`` for products: what a pre-norm branch reads."""
        rounded = self.for_products(len(x))
        out = self.new(len(x), self.config.d_model) if rounded is None else None
        self.residual(
            x, None, self.norm_of(name, layer), None, out, rounded, self.site(layer, 0), -1
        )
        return out if rounded is None else rounded  # type: ignore[return-value]

    def attention(self, qkv: Tensor, layer: int, step: int, lse: Tensor | None) -> Tensor:
        """Context (n, d) in the products' type."""
        from lares_kernels.triton.kernels.layered_attention import attention_kernel

        context = self.new(len(qkv), self.config.d_model, self.dtype)
        blocks = self.blocks[0]
        attention_kernel[self.attention_grid(blocks, step)](
            qkv,
            context,
            lse,
            self.rows.starts,
            self.rows.streams,
            len(qkv),
            layer,
            self.call.drawn_step(step),
            *self.seed,
            **self.attention_options(blocks),
        )
        return context

    def activate(self, inner: Tensor) -> Tensor:
        from lares_kernels.triton.kernels.layered_rows import activate_kernel

        out = torch.empty_like(inner)
        grid = (-(-inner.numel() // FLAT_BLOCK),)
        activate_kernel[grid](inner, out, inner.numel(), BLOCK=FLAT_BLOCK, C=self.compiled)
        return out

    def site(self, layer: int, step: int, chosen: Tensor | None = None) -> Site:
        """Of all rows, or of those ``chosen``."""
        stream, position = self.rows.stream, self.rows.position
        if chosen is not None:
            stream, position = stream[chosen], position[chosen]
        return Site(stream, position, layer, self.call.drawn_step(step))

    def layer(
        self,
        x: Tensor,
        x_in: Tensor,
        layer: int,
        step: int,
        tapes: list[LayerTape] | None,
        newest: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One layer on ``x`` (n, d) float32, whose rounded copy for products is ``x_in``.

        ``newest``: the only rows whose output is read, or None for all.

        Returns:
            The layer's output, float32 and for products (post-norm; with pre-norm nothing reads the
            second).
        """
        d, post, taped = self.config.d_model, self.c.post, tapes is not None
        source = x_in if post else self.normalised(x, "attn_norm", layer)
        qkv = self.linear(source, "qkv", layer)
        lse = self.new(self.config.n_heads, len(x)) if taped else None
        context = self.attention(qkv, layer, step, lse)
        site = self.site(layer, step, newest)
        before, mixed = x, context
        if newest is not None:
            before, mixed = x.index_select(0, newest), context.index_select(0, newest)
        n_rows = len(before)
        branch = self.linear(mixed, "out", layer)

        # Post-norm goes on from the sum's LayerNorm, pre-norm from the sum.
        attn_sum = self.new(n_rows, d) if taped or not post else None
        rounded = self.for_products(n_rows)
        u = self.new(n_rows, d) if post or rounded is None else None
        norm = self.norm_of("attn_norm" if post else "ffn_norm", layer)
        self.residual(before, branch, norm, attn_sum, u, rounded, site, 0)
        up_in = u if rounded is None else rounded
        residual = u if post else attn_sum
        assert up_in is not None
        assert residual is not None

        inner = self.linear(up_in, "up", layer)
        activated = self.activate(inner)
        branch = self.linear(activated, "down", layer)
        out, out_in = self.new(n_rows, d), self.for_products(n_rows) if post else None
        ffn_sum = self.new(n_rows, d) if taped and post else None
        norm_after = self.norm_of("ffn_norm", layer) if post else None
        self.residual(residual, branch, norm_after, ffn_sum, out, out_in, site, 1)
        if tapes is not None:
            assert lse is not None
            assert attn_sum is not None
            tapes.append(
                LayerTape(
                    *(site, newest, x, source, qkv, lse, context, attn_sum, up_in, inner),
                    activated,
                    out if ffn_sum is None else ffn_sum,
                )
            )
        return out, out if out_in is None else out_in

    def layers(
        self, x: Tensor, x_in: Tensor, step: int, tapes: list[LayerTape] | None = None
    ) -> Tensor:
        """All layers of a step; ``tapes`` gets one entry each.

        At the last step, if nobody wants whole states, only the newest rows come out:
        :meth:`newest_alone`.
        """
        last = self.config.n_layers - 1
        for layer in range(self.config.n_layers):
            newest = self.newest_alone(step) if layer == last else None
            x, x_in = self.layer(x, x_in, layer, step, tapes, newest)
        return x

    def newest_alone(self, step: int) -> Tensor | None:
        """Newest row of each sequence that runs, (s,) int64, where a step's output is read there alone.

        Sequences that run at the greatest depth all end with it.
        """
        if self.call.wants_state or step not in (0, self.call.max_steps):
            return None
        return self.rows.starts[1 : self.rows.sequences[-1] + 1].to(torch.int64) - 1

    def written(self, before: Tensor | None, refined: Tensor, step: int) -> Tensor:
        """All rows (N, d) after a step: those refined, and the others as they were before."""
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
        """``H`` of every row, float32 and for products: the input of a core without state."""
        flat = self.hidden.reshape(-1, self.config.d_model)
        x = flat.index_select(0, self.rows.hidden_row).to(torch.float32)
        return x, x.to(self.dtype)

    def running(self, step: int) -> int:
        """Rows that run at a step."""
        return self.rows.rows[step - 1]

    def on_device(self) -> contextlib.ExitStack:
        """Launches inside go to the call's device, and products are taken in the type asked for."""
        stack = contextlib.ExitStack()
        stack.enter_context(on(self.device))
        stack.enter_context(torch.autocast(self.device.type, enabled=False))
        return stack


def layered_forward(
    call: RefineCall,
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of :class:`lares_kernels.backends.Backend`."""
    run = Layered(call, hidden, state, parameters, precision)
    rows, d = run.rows, call.config.d_model
    kept = torch.empty(call.kept_size, dtype=torch.float32, device=run.device)
    trajectory = torch.empty(
        call.n_sequences, call.max_steps, d, dtype=torch.float32, device=run.device
    )
    with run.on_device():
        if not call.config.is_recurrent:
            current = run.written(None, run.layers(*run.hidden_rows(), 0), 0)
            trajectory[:, 0] = current[rows.newest]
        else:
            current = run.first_state()
            for step in range(1, call.max_steps + 1):
                place = states_of(call, rows, kept, step)
                start = run.step_input(current, run.running(step), place)
                current = run.written(current, run.layers(*start, step), step)
                trajectory[:, step - 1] = current[rows.newest]
        final = unpack(call, rows, current) if call.wants_state else current.new_empty(0)
    return trajectory, final, kept


def states_of(call: RefineCall, rows: PackedRows, kept: Tensor, step: int) -> Tensor | None:
    """``s_{step-1}`` (N, d) within what is kept, or None where nothing is."""
    if not kept.numel():
        return None
    size, d = call.max_steps * call.kept_rows * call.config.d_model, call.config.d_model
    return kept[:size].view(call.max_steps, call.kept_rows, d)[step - 1, : rows.n_rows]


def unpack(call: RefineCall, rows: PackedRows, values: Tensor) -> Tensor:
    """Packed rows (N, d) in the shape of the caller's states, zeros at padding."""
    shape = call.state_shape
    flat = values.new_zeros(shape).view(-1, call.config.d_model)
    return flat.index_copy_(0, rows.state_row, values).view(shape)
