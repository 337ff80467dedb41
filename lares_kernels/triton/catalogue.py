"""Implement backend ``triton`` of the catalogue ops: launches of ``kernels/catalogue.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from lares_kernels.common.devices import on
from lares_kernels.gpu.scratch import unfilled
from lares_kernels.reference.catalogue import (
    NO_ITEM,
    ReferenceCatalogue,
    normalise_backward,
    prepared_queries,
)
from lares_kernels.registry.backends import register_catalogue
from lares_kernels.registry.plan_failures import Plan, run_first
from lares_kernels.spec.catalogue_call import (
    SHORTEST,
    AskedGradients,
    CatalogueCall,
    Operands,
    in_order,
)
from lares_kernels.spec.serves import ServesCatalogues, check_items
from lares_kernels.triton.backend import TritonKernels, precision_of, product_types
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, compile_time, padded
from lares_kernels.triton.launch.rounding import round_to_tf32
from lares_kernels.triton.launch.settings import multiprocessors

# Wider ones spill; products of whole float32 have no tensor cores and need registers for them.
MAX_WIDTH = {"half": 256, "tf32": 256, "ieee": 64}
MAX_K = 256
MIN_K = 64
TOP_K_ROWS = 16
_MAX_ITEMS = (1 << 31) - (1 << 10)  # ids, and those past the last block's end, are int32
_PROGRAMS = 4  # for each multiprocessor, where the queries alone are too few


@dataclass(frozen=True)
class Tile:
    """Hold the compile-time constants of the catalogue's kernels, which read its fields as ``C.d``.

    Attributes:
        width, d: real and padded width of a row.
        rows, columns: queries and items of a tile.
        cosine: scores are cosines.
        excluded: rows exclude items.
        precision: of products, ``ieee`` or ``tf32``.
    """

    width: int
    d: int
    rows: int
    columns: int
    cosine: bool
    excluded: bool
    precision: str

    @property
    def tf32(self) -> bool:
        """Return True if products' operands are rounded to tf32."""
        return self.precision == "tf32"

    @property
    def slice(self) -> int:
        """Return the columns of a slice of rows that are kept apart from items without spilling."""
        return min(self.d, 32 if self.d <= 64 else 64)


def tile_of(width: int, precision: str, cosine: bool, excluded: bool) -> Tile:
    """Return the constants of kernels whose tiles fit the registers."""
    d = padded(width)
    side = 64 if d <= 64 and precision != "ieee" else 32
    # Items that are rounded to tf32 are held in registers.
    columns = min(side, 32) if precision == "tf32" else side
    products = "ieee" if precision == "half" else precision
    return Tile(width, d, side, columns, cosine, excluded, products)


def top_k_tile(c: Tile, k: int) -> Tile:
    """Return the constants of ``top_k``, of whose tiles each row holds the best ``k`` or more."""
    return replace(c, rows=TOP_K_ROWS, columns=max(MIN_K, padded(k)))


def options_of(width: int, precision: str) -> dict[str, int]:
    """Return the options of Triton's launch for rows of ``width``."""
    warps = 4 if padded(width) <= 64 and precision == "half" else 8
    return {"num_warps": warps, "num_stages": 2, **LAUNCH_OPTIONS}


_P = ParamSpec("_P")
_T = TypeVar("_T")
_Op = Callable[Concatenate["TritonCatalogue", CatalogueCall, Operands, _P], _T]


def _its_only_plan(op: _Op[_P, _T]) -> _Op[_P, _T]:
    """Record on which devices the kernels of ``op`` do not start."""

    @wraps(op)
    def run(
        self: TritonCatalogue,
        call: CatalogueCall,
        given: Operands,
        /,
        *rest: _P.args,
        **named: _P.kwargs,
    ) -> _T:
        precision = precision_of(call.product_dtype)
        code = ("catalogue", op.__name__, precision, given.items.shape[1], call.cosine)
        words = f"the catalogue's kernels ({op.__name__}, {precision} products)"
        plan = Plan(self.name, words, given.items.device, code)
        return run_first([plan], lambda _: op(self, call, given, *rest, **named))

    return run


class TritonCatalogue(TritonKernels):
    """Compute in tiles of queries and items; wider ones, and ``k`` above ``MAX_K``, are the
    reference's."""

    @property
    def serves(self) -> ServesCatalogues:
        return ServesCatalogues(
            widths={each: range(1, MAX_WIDTH[precision_of(each)] + 1) for each in product_types()},
            most_items=_MAX_ITEMS,
        )

    @_its_only_plan
    def log_probability(
        self, call: CatalogueCall, given: Operands, wants_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        from lares_kernels.triton.kernels.catalogue import log_probability_kernel

        inputs, (queries, items, _, _) = _Inputs(call, given), given
        blocks, splits = inputs.grid()
        floats = partial(unfilled, dtype=torch.float32, device=items.device)
        score, shifts, sums = floats(len(queries)), *(floats(splits, len(queries)) for _ in "ab")
        weighted = floats(splits, len(queries)) if wants_entropy else None
        with on(items.device):
            log_probability_kernel[(blocks, splits)](
                *inputs.tensors(given.chosen),
                *(score, shifts, sums, weighted),
                *(*inputs.sizes, splits),
                ENTROPY=wants_entropy,
                C=compile_time(inputs.c),
                **inputs.options,
            )
        shift = shifts.amax(0)
        scale = (shifts - shift).exp()
        total = (sums * scale).sum(0)
        normaliser = shift + total.log()
        entropy = floats(0)
        if weighted is not None:
            entropy = normaliser - (weighted * scale).sum(0) / total
        return score - normaliser, normaliser, entropy

    @_its_only_plan
    def gradients(
        self, call: CatalogueCall, given: Operands, asked: AskedGradients
    ) -> tuple[Tensor, Tensor]:
        from lares_kernels.triton.kernels.catalogue import (
            item_gradients_kernel,
            query_gradients_kernel,
        )
        from lares_kernels.triton.kernels.catalogue_apart import query_gradients_apart_kernel

        inputs, (queries, items, _, _) = _Inputs(call, given), given
        normaliser, g_log_probability, wants_queries, wants_items = asked
        floats = partial(unfilled, dtype=torch.float32, device=items.device)
        g_queries, g_items = floats(0), floats(items.shape if wants_items else 0)
        known = (*inputs.tensors(given.chosen), normaliser, g_log_probability)
        c = compile_time(inputs.c)
        with on(items.device):
            if wants_queries:
                blocks, splits = inputs.grid()
                parts = floats(splits, *queries.shape)
                told = (*known, parts, *inputs.sizes, splits)
                query_gradients_kernel[(blocks, splits)](*told, C=c, **inputs.options)
                if inputs.c.excluded:
                    slices = inputs.c.d // inputs.c.slice
                    query_gradients_apart_kernel[(blocks, splits, slices)](
                        *told, C=c, **inputs.options
                    )
                g_queries = parts.sum(0) / call.temperature
                if call.cosine:
                    g_queries = normalise_backward(g_queries, queries.float())
            if wants_items:
                item_gradients_kernel[(-(-len(items) // inputs.c.columns),)](
                    *(*known, g_items, *inputs.sizes, 1.0 / SHORTEST), C=c, **inputs.options
                )
        return g_queries, g_items

    @_its_only_plan
    def top_k(self, call: CatalogueCall, given: Operands, k: int) -> tuple[Tensor, Tensor]:
        if k > MAX_K:
            return ReferenceCatalogue().top_k(call, given, k)
        from lares_kernels.triton.kernels.catalogue import top_k_kernel

        inputs, (queries, items, _, _) = _Inputs(call, given), given
        c = top_k_tile(inputs.c, k)
        blocks, splits = inputs.grid(c)
        keys = unfilled(splits, len(queries), c.columns, dtype=torch.int64, device=items.device)
        n_queries, _, n_items, n_excluded = inputs.sizes
        with on(items.device):
            top_k_kernel[(blocks, splits)](
                *inputs.tensors(),
                *(keys, n_queries, n_items, n_excluded, splits),
                C=compile_time(c),
                num_warps=8,
                num_stages=1,
            )
        best = keys.transpose(0, 1).flatten(1).sort(dim=1, descending=True).values[:, :k]
        ordered = (best >> 32).to(torch.int32)
        scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
        none = best == torch.iinfo(torch.int64).min
        ids = 0x7FFFFFFF - (best & 0x7FFFFFFF)
        return scores.masked_fill(none, float("-inf")), ids.masked_fill(none, NO_ITEM)

    @_its_only_plan
    def ranks(self, call: CatalogueCall, given: Operands) -> Tensor:
        from lares_kernels.triton.kernels.catalogue import ranks_kernel

        inputs, (queries, items, targets, _) = _Inputs(call, given), given
        blocks, splits = inputs.grid()
        counts = unfilled(splits, len(queries), dtype=torch.int32, device=items.device)
        with on(items.device):
            ranks_kernel[(blocks, splits)](
                *(*inputs.tensors(targets), counts, *inputs.sizes, splits),
                C=compile_time(inputs.c),
                **inputs.options,
            )
        broken = (counts == torch.iinfo(torch.int32).max).any(0)
        return (counts.sum(0, dtype=torch.int64) - 1).masked_fill(broken, NO_ITEM)


class _Inputs:
    """Hold the arguments that every kernel takes."""

    def __init__(self, call: CatalogueCall, given: Operands) -> None:
        queries, items, chosen, excluded = given
        check_items("triton", len(items), _MAX_ITEMS)
        precision = precision_of(call.product_dtype)
        self.queries = prepared_queries(call, queries.float()).to(call.product_dtype).contiguous()
        if precision == "tf32":
            with on(items.device):
                self.queries = round_to_tf32(self.queries)
        self.items = items
        self.lengths = None
        if call.cosine:
            lengths = torch.linalg.vector_norm(items, dim=1, dtype=torch.float32)
            self.lengths = 1.0 / lengths.clamp_min(SHORTEST)
        self.excluded = None
        if excluded is not None and excluded.numel():
            self.excluded = in_order(excluded, len(items)).to(torch.int32)
        width = items.shape[1]
        self.c = tile_of(width, precision, call.cosine, self.excluded is not None)
        self.options = options_of(width, precision)
        n_excluded = 0 if self.excluded is None else self.excluded.shape[1]
        of_a_row = len(queries) // len(chosen) if len(chosen) else 1
        self.sizes = (len(queries), max(1, of_a_row), len(items), n_excluded)

    def tensors(self, *chosen: Tensor) -> tuple[Tensor | None, ...]:
        """Return queries, items, their inverse lengths, ids, excluded items."""
        return (self.queries, self.items, self.lengths, *chosen, self.excluded)

    def grid(self, c: Tile | None = None) -> tuple[int, int]:
        """Return (blocks of queries, splits of the catalogue)."""
        c = c or self.c
        blocks = -(-len(self.queries) // c.rows)
        wanted = -(-_PROGRAMS * multiprocessors(self.items.device) // max(1, blocks))
        most = -(-len(self.items) // c.columns)
        return blocks, max(1, min(wanted, most, 64))


register_catalogue(TritonCatalogue())
