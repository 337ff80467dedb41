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
from lares_kernels.triton.layered_blocks import Blocks, attention_blocks
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
    ``of_queries`` is what queries are of where they have an input of their own. From
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
    of_queries: Tensor | None
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
        if call.padding_is_read:
            columns = torch.arange(call.padded_length, device=hidden.device)
            padding = columns < call.padded_length - call.lengths[:, None]
            hidden = hidden.masked_fill(padding[..., None], 0.0)
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

    def shown(self, x: Tensor) -> Tensor:
        """``x``, the first rows of all, with zeros in rows of padding."""
        padding = self.rows.hidden_padding
        return x if padding is None else x.masked_fill(padding[: len(x)], 0.0)

    def queries_keys_values(self, x: Tensor, of_queries: Tensor | None, layer: int) -> Tensor:
        """(n, 3 d) in the products' type; queries of ``of_queries`` where that is given."""
        if of_queries is None:
            return self.linear(x, "qkv", layer)
        weight, bias = self.products["qkv_weight"][layer], self.products["qkv_bias"][layer]
        d = self.config.d_model
        queries = torch.addmm(bias[:d], of_queries, weight[:d].mT)
        return torch.cat((queries, torch.addmm(bias[d:], x, weight[d:].mT)), dim=1)

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
        return self.shown(out)

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
        out = self.shown(out)
        return out, out if rounded is None else self.shown(rounded)

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

    def normalised(self, x: Tensor, name: str, layer: int) -> tuple[Tensor | None, Tensor]:
        """LayerNorm of ``x``: float32 (None where nothing reads that), and for products."""
        rounded = self.for_products(len(x))
        out = None
        if rounded is None or self.c.query:
            out = self.new(len(x), self.config.d_model)
        self.residual(
            x, None, self.norm_of(name, layer), None, out, rounded, self.site(layer, 0), -1
        )
        return out, out if rounded is None else rounded  # type: ignore[return-value]

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

    def activate(self, inner: Tensor, site: Site) -> Tensor:
        """The activation of (n, f), dropped."""
        from lares_kernels.triton.kernels.layered_rows import activate_kernel

        out = torch.empty_like(inner)
        grid = (-(-inner.numel() // FLAT_BLOCK),)
        activate_kernel[grid](
            inner,
            out,
            inner.numel(),
            *self.inner_draws(site),
            BLOCK=FLAT_BLOCK,
            C=self.compiled,
        )
        return out

    def inner_draws(self, site: Site) -> tuple[Any, ...]:
        """What kernels address the draws inside the feed-forward by."""
        where = (site.stream, site.position, self.config.d_ff, site.layer, site.step)
        return (*where, *self.seed)

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
            The layer's output, float32 and for products (with pre-norm nothing reads the second).
        """
        d, taped = self.config.d_model, tapes is not None
        post, query = self.c.post, self.c.query
        source, of_queries, before = x_in, None, x
        if not post:
            normalised, rows_in = self.normalised(x, "attn_norm", layer)
            if query:
                assert normalised is not None
                before, of_queries = normalised, rows_in
            else:
                source = rows_in
        qkv = self.queries_keys_values(source, of_queries, layer)
        lse = self.new(self.config.n_heads, len(x)) if taped else None
        context = self.attention(qkv, layer, step, lse)
        site = self.site(layer, step, newest)
        mixed = context
        if newest is not None:
            before, mixed = before.index_select(0, newest), context.index_select(0, newest)
        n_rows = len(before)
        branch = self.linear(mixed, "out", layer)

        # Post-norm and query-norm go on from the sum's LayerNorm, pre-norm from the sum.
        from_norm = post or query
        attn_sum = self.new(n_rows, d) if taped or not from_norm else None
        rounded = self.for_products(n_rows)
        u = self.new(n_rows, d) if from_norm or rounded is None else None
        norm = self.norm_of("attn_norm" if post else "ffn_norm", layer)
        self.residual(before, branch, norm, attn_sum, u, rounded, site, 0)
        up_in = u if rounded is None else rounded
        residual = u if from_norm else attn_sum
        assert up_in is not None
        assert residual is not None

        inner = self.linear(up_in, "up", layer)
        activated = self.activate(inner, site)
        branch = self.linear(activated, "down", layer)
        out, out_in = self.new(n_rows, d), self.for_products(n_rows) if from_norm else None
        ffn_sum = self.new(n_rows, d) if taped and post else None
        norm_after = self.norm_of("ffn_norm", layer) if post else None
        self.residual(residual, branch, norm_after, ffn_sum, out, out_in, site, 1)
        if tapes is not None:
            assert lse is not None
            assert attn_sum is not None
            tapes.append(
                LayerTape(
                    *(site, newest, x, source, qkv, lse, context, of_queries, attn_sum, up_in),
                    *(inner, activated),
                    out if ffn_sum is None else ffn_sum,
                )
            )
        if newest is None:  # newest rows are never padding
            out, out_in = self.shown(out), None if out_in is None else self.shown(out_in)
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
