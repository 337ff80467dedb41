"""Implement backend ``cpu`` of the catalogue ops with csrc/cpu/per_isa/catalogue.hpp."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from lares_kernels.binding import cpu_library as lib
from lares_kernels.cpu.backend import PRECISIONS, CpuKernels
from lares_kernels.cpu.tensors import Addressed, empty_like, empty_tensor
from lares_kernels.registry.backends import register_catalogue
from lares_kernels.spec.catalogue_call import AskedGradients, CatalogueCall, Operands, in_order
from lares_kernels.spec.choices import Code, Precision, Scores
from lares_kernels.spec.errors import BackendError
from lares_kernels.spec.serves import ServesCatalogues, check_items

_MAX_ITEMS = 1 << 30


class CpuCatalogue(CpuKernels):
    """Compute in blocks of items, which stay in cache while all queries pass by them."""

    serves = ServesCatalogues(
        widths=dict.fromkeys(PRECISIONS, range(1, 4096 + 1)), most_items=_MAX_ITEMS
    )

    def log_probability(
        self, call: CatalogueCall, given: Operands, wants_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = _Inputs(call, given)
        found, normaliser = (empty_tensor(len(given.queries)) for _ in range(2))
        entropy = empty_tensor(len(given.queries) if wants_entropy else 0)
        inputs.c.log_probability = found.data_ptr()
        inputs.c.normaliser = normaliser.data_ptr()
        if wants_entropy:
            inputs.c.entropy = entropy.data_ptr()
        inputs.run("log_probability")
        return found, normaliser, entropy

    def gradients(
        self, call: CatalogueCall, given: Operands, asked: AskedGradients
    ) -> tuple[Tensor, Tensor]:
        normaliser, g_log_probability, wants_queries, wants_items = asked
        inputs = _Inputs(call, given)
        inputs.c.normaliser = inputs.address(normaliser)
        inputs.c.g_log_probability = inputs.address(g_log_probability)
        g_queries = empty_like(given.queries) if wants_queries else empty_tensor(0)
        g_items = empty_like(given.items) if wants_items else empty_tensor(0)
        if wants_queries:
            inputs.c.g_queries = g_queries.data_ptr()
        if wants_items:
            inputs.c.g_items = g_items.data_ptr()
        inputs.run("gradients")
        return g_queries, g_items

    def top_k(self, call: CatalogueCall, given: Operands, k: int) -> tuple[Tensor, Tensor]:
        inputs = _Inputs(call, given)
        scores = empty_tensor(len(given.queries), k)
        ids = empty_tensor(len(given.queries), k, dtype=torch.int64)
        inputs.c.k = k
        inputs.c.top_scores, inputs.c.top_ids = scores.data_ptr(), ids.data_ptr()
        inputs.run("top_k")
        return scores, ids

    def ranks(self, call: CatalogueCall, given: Operands) -> Tensor:
        inputs = _Inputs(call, given)
        ranks = empty_tensor(len(given.queries), dtype=torch.int64)
        inputs.c.ranks = ranks.data_ptr()
        inputs.run("ranks")
        return ranks


class _Inputs(Addressed):
    """Hold a call's C struct and the tensors that its addresses point to."""

    def __init__(self, call: CatalogueCall, given: Operands) -> None:
        queries, items, chosen, excluded = given
        n_items = len(items)
        check_items("cpu", n_items, _MAX_ITEMS)
        super().__init__()
        c = self.c = lib.LaresCatalogue()
        c.abi = lib.ABI
        c.n_queries, c.width = queries.shape
        c.n_rows, c.n_items = c.n_queries, n_items
        c.scores = Scores.of(call.scores)
        c.precision = Precision.of(PRECISIONS[call.product_dtype])
        c.threads = torch.get_num_threads()
        c.temperature = call.temperature
        c.queries = self.address(queries)
        # A table in bfloat16 is read as it is: another in float32 would be twice its size.
        c.items_are_bf16 = items.dtype == torch.bfloat16
        c.items = self.address(items, torch.bfloat16 if c.items_are_bf16 else torch.float32)
        if len(chosen):
            c.n_rows, c.chosen = len(chosen), self.address(chosen, torch.int64)
        if excluded is not None and excluded.numel():
            ordered = in_order(excluded, n_items)
            c.n_rows, c.n_excluded = ordered.shape
            c.excluded = self.address(ordered, torch.int64)

    def run(self, name: str) -> None:
        """Call the library; errors become exceptions."""
        if self.c.n_queries == 0:
            return
        code = getattr(lib.loaded(), f"lares_catalogue_{name}")(ctypes.byref(self.c))
        if code == Code.NO_MEMORY:
            raise MemoryError(f"{name}: no memory for the kernel's buffers")
        if code != Code.OK:
            raise BackendError(f"the kernel refused {name} with code {code}")


register_catalogue(CpuCatalogue())
