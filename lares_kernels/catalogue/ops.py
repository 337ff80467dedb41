"""``torch.ops.lares_kernels.catalogue_*``: definitions, fakes, one implementation for all devices."""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.call import PRECISIONS
from lares_kernels.catalogue.backends import catalogue_backend
from lares_kernels.catalogue.call import (
    CatalogueCall,
    check_chosen,
    check_excluded,
    checks_values,
    working_dtype,
)

_OPTIONS = "str scores, float temperature, str backend, str precision"
_library = torch.library.Library("lares_kernels", "FRAGMENT")
_library.define(
    "catalogue_log_probability(Tensor queries, Tensor items, Tensor chosen, Tensor? excluded, "
    f"{_OPTIONS}, bool wants_entropy) -> (Tensor, Tensor normaliser, Tensor entropy)"
)
_library.define(
    "catalogue_gradients(Tensor queries, Tensor items, Tensor chosen, Tensor? excluded, "
    f"{_OPTIONS}, Tensor normaliser, Tensor g_log_probability, bool wants_queries, "
    "bool wants_items) -> (Tensor, Tensor)"
)
_library.define(
    f"catalogue_top_k(Tensor queries, Tensor items, Tensor? excluded, {_OPTIONS}, SymInt k) "
    "-> (Tensor scores, Tensor ids)"
)
_library.define(
    "catalogue_ranks(Tensor queries, Tensor items, Tensor targets, Tensor? excluded, "
    f"{_OPTIONS}) -> Tensor"
)


def _log_probability(
    queries: Tensor,
    items: Tensor,
    chosen: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float,
    backend: str,
    precision: str,
    wants_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    check_values("chosen", items, chosen, excluded)
    call = CatalogueCall(scores, temperature, PRECISIONS[precision])
    return catalogue_backend(backend).log_probability(
        call, queries, items, chosen, excluded, wants_entropy
    )


def _gradients(
    queries: Tensor,
    items: Tensor,
    chosen: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float,
    backend: str,
    precision: str,
    normaliser: Tensor,
    g_log_probability: Tensor,
    wants_queries: bool,
    wants_items: bool,
) -> tuple[Tensor, Tensor]:
    call = CatalogueCall(scores, temperature, PRECISIONS[precision])
    return catalogue_backend(backend).gradients(
        call,
        queries,
        items,
        chosen,
        excluded,
        normaliser,
        g_log_probability,
        wants_queries,
        wants_items,
    )


def _top_k(
    queries: Tensor,
    items: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float,
    backend: str,
    precision: str,
    k: int,
) -> tuple[Tensor, Tensor]:
    if excluded is not None and checks_values(items):
        check_excluded(excluded, len(items))
    call = CatalogueCall(scores, temperature, PRECISIONS[precision])
    return catalogue_backend(backend).top_k(call, queries, items, excluded, k)


def _ranks(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float,
    backend: str,
    precision: str,
) -> Tensor:
    check_values("target", items, targets, excluded)
    call = CatalogueCall(scores, temperature, PRECISIONS[precision])
    return catalogue_backend(backend).ranks(call, queries, items, targets, excluded)


def check_values(name: str, items: Tensor, ids: Tensor, excluded: Tensor | None) -> None:
    """Raise ``ValueError`` unless ``ids`` (R,) and ``excluded`` fit; on a CPU, or where asked for."""
    if checks_values(items):
        if excluded is not None:
            check_excluded(excluded, len(items))
        check_chosen(name, ids, excluded, len(items))


def _log_probability_fake(
    queries: Tensor,
    items: Tensor,
    chosen: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float,
    backend: str,
    precision: str,
    wants_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype, n = working_dtype(queries, items), queries.shape[0]
    new = queries.new_empty
    size = n if wants_entropy else 0
    return new((n,), dtype=dtype), new((n,), dtype=dtype), new((size,), dtype=dtype)


def _gradients_fake(queries: Tensor, items: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    dtype = working_dtype(queries, items)
    *_, wants_queries, wants_items = rest
    return (
        queries.new_empty(queries.shape if wants_queries else (0,), dtype=dtype),
        queries.new_empty(items.shape if wants_items else (0,), dtype=dtype),
    )


def _top_k_fake(
    queries: Tensor,
    items: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float,
    backend: str,
    precision: str,
    k: int,
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    dtype = working_dtype(queries, items)
    return queries.new_empty(shape, dtype=dtype), queries.new_empty(shape, dtype=torch.int64)


def _ranks_fake(queries: Tensor, items: Tensor, targets: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(targets)


for _name, _run, _fake in (
    ("catalogue_log_probability", _log_probability, _log_probability_fake),
    ("catalogue_gradients", _gradients, _gradients_fake),
    ("catalogue_top_k", _top_k, _top_k_fake),
    ("catalogue_ranks", _ranks, _ranks_fake),
):
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _run, _key)
    torch.library.register_fake(f"lares_kernels::{_name}", _fake, lib=_library)
