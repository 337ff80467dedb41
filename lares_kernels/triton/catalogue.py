"""Implement backend ``triton`` of the catalogue ops: launches of ``kernels/catalogue.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

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
from lares_kernels.spec.catalogue_call import SHORTEST, CatalogueCall, Operands, in_order
from lares_kernels.spec.serves import ServesCatalogues, check_items
from lares_kernels.triton.backend import TritonBackend, devices, precision_of, product_types
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, interpreted, padded
from lares_kernels.triton.launch.rounding import round_to_tf32
from lares_kernels.triton.launch.settings import multiprocessors

# Wider ones spill; products of whole float32 have no tensor cores and need registers for them.
MAX_WIDTH = {"half": 256, "tf32": 256, "ieee": 64}
MAX_K = 256
MIN_K = 64
TOP_K_ROWS = 16
_MAX_ITEMS = (1 << 31) - (1 << 10)  # ids, and those past the last block's end, are int32
_PROGRAMS = 4  # for each multiprocessor, where the queries alone are too few


def tile_of(width: int, precision: str) -> dict[str, int]:
    """Return queries and items of a tile, and the launch's options, such that a tile fits the
    registers."""
    side = 64 if width <= 64 and precision != "ieee" else 32
    warps = 4 if width <= 64 and precision == "half" else 8
    # Items that are rounded to tf32 are held in registers.
    columns = min(side, 32) if precision == "tf32" else side
    return {"ROWS": side, "COLUMNS": columns, "num_warps": warps, "num_stages": 2, **LAUNCH_OPTIONS}


def slice_of(width: int) -> int:
    """Return the columns of a slice of rows that are kept apart from items without spilling."""
    return min(width, 32 if width <= 64 else 64)


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


class TritonCatalogue:
    """Compute in tiles of queries and items; wider ones, and ``k`` above ``MAX_K``, are the
    reference's."""

    name = "triton"
    preference = 10
    automatic = not interpreted()
    any_size = False
    starts_kernels = True

    @property
    def devices(self) -> tuple[str, ...] | None:
        return devices()

    @property
    def serves(self) -> ServesCatalogues:
        return ServesCatalogues(
            widths={each: range(1, MAX_WIDTH[precision_of(each)] + 1) for each in product_types()},
            most_items=_MAX_ITEMS,
        )

    def availability(self) -> str | None:
        return TritonBackend().availability()

    def build(self, product_dtype: torch.dtype) -> str | None:
        return TritonBackend().build(product_dtype)

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
                **inputs.constants,
                **inputs.tile,
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
        self,
        call: CatalogueCall,
        given: Operands,
        normaliser: Tensor,
        g_log_probability: Tensor,
        wants: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        from lares_kernels.triton.kernels.catalogue import (
            item_gradients_kernel,
            query_gradients_kernel,
        )
        from lares_kernels.triton.kernels.catalogue_apart import query_gradients_apart_kernel

        inputs, (queries, items, _, _) = _Inputs(call, given), given
        wants_queries, wants_items = wants
        floats = partial(unfilled, dtype=torch.float32, device=items.device)
        g_queries, g_items = floats(0), floats(items.shape if wants_items else 0)
        known = (*inputs.tensors(given.chosen), normaliser, g_log_probability)
        with on(items.device):
            if wants_queries:
                blocks, splits = inputs.grid()
                parts = floats(splits, *queries.shape)
                told = (*known, parts, *inputs.sizes, splits)
                query_gradients_kernel[(blocks, splits)](*told, **inputs.constants, **inputs.tile)
                if inputs.excluded is not None:
                    size = slice_of(inputs.constants["D"])
                    query_gradients_apart_kernel[(blocks, splits, inputs.constants["D"] // size)](
                        *told, SLICE=size, **inputs.constants, **inputs.tile
                    )
                g_queries = parts.sum(0) / call.temperature
                if call.cosine:
                    g_queries = normalise_backward(g_queries, queries.float())
            if wants_items:
                columns = inputs.tile["COLUMNS"]
                item_gradients_kernel[(-(-len(items) // columns),)](
                    *known,
                    g_items,
                    *inputs.sizes,
                    1.0 / SHORTEST,
                    **inputs.constants,
                    **inputs.tile,
                )
        return g_queries, g_items

    @_its_only_plan
    def top_k(self, call: CatalogueCall, given: Operands, k: int) -> tuple[Tensor, Tensor]:
        if k > MAX_K:
            return ReferenceCatalogue().top_k(call, given, k)
        from lares_kernels.triton.kernels.catalogue import top_k_kernel

        inputs, (queries, items, _, _) = _Inputs(call, given), given
        rows, side = TOP_K_ROWS, max(MIN_K, padded(k))
        blocks, splits = inputs.grid(rows, side)
        keys = unfilled(splits, len(queries), side, dtype=torch.int64, device=items.device)
        n_queries, _, n_items, n_excluded = inputs.sizes
        with on(items.device):
            top_k_kernel[(blocks, splits)](
                *inputs.tensors(),
                *(keys, n_queries, n_items, n_excluded, splits),
                ROWS=rows,
                K=side,
                **inputs.constants,
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
        tile = {name: value for name, value in inputs.tile.items() if name != "COLUMNS"}
        with on(items.device):
            ranks_kernel[(blocks, splits)](
                *inputs.tensors(targets),
                counts,
                *inputs.sizes,
                splits,
                **inputs.constants,
                **tile,
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
        self.tile = tile_of(padded(width), precision)
        self.constants: dict[str, Any] = {
            "WIDTH": width,
            "D": padded(width),
            "COSINE": call.cosine,
            "EXCLUDED": self.excluded is not None,
            "PRECISION": "ieee" if precision == "half" else precision,
        }
        n_excluded = 0 if self.excluded is None else self.excluded.shape[1]
        of_a_row = len(queries) // len(chosen) if len(chosen) else 1
        self.sizes = (len(queries), max(1, of_a_row), len(items), n_excluded)

    def tensors(self, *chosen: Tensor) -> tuple[Tensor | None, ...]:
        """Return queries, items, their inverse lengths, ids, excluded items."""
        return (self.queries, self.items, self.lengths, *chosen, self.excluded)

    def grid(self, rows: int | None = None, columns: int | None = None) -> tuple[int, int]:
        """Return (blocks of queries, splits of the catalogue)."""
        blocks = -(-len(self.queries) // (rows or self.tile["ROWS"]))
        wanted = -(-_PROGRAMS * multiprocessors(self.items.device) // max(1, blocks))
        most = -(-len(self.items) // (columns or self.tile["COLUMNS"]))
        return blocks, max(1, min(wanted, most, 64))


register_catalogue(TritonCatalogue())
