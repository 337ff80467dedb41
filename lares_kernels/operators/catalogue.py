"""Define ``torch.ops.lares_kernels.catalogue_*``: schemas, fakes, one kernel for all devices.

The implementations check their arguments, since anyone may call them and kernels get addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.dispatcher import needs_no_dispatcher, same_device
from lares_kernels.registry.backends import CATALOGUE, CatalogueBackend, may_pass_on
from lares_kernels.spec.call import PRECISIONS, product_precision
from lares_kernels.spec.catalogue_call import (
    AskedGradients,
    CatalogueCall,
    CatalogueOptions,
    CatalogueRequest,
    Operands,
    check_chosen,
    check_excluded,
    check_k,
    check_options,
    check_per_query,
    checks_values,
    operands,
    working_dtype,
)
from lares_kernels.spec.options import schema_of

_OPTIONS = schema_of(CatalogueOptions)
library = torch.library.Library("lares_kernels", "FRAGMENT")
library.define(
    "catalogue_log_probability(Tensor queries, Tensor items, Tensor chosen, Tensor? excluded, "
    f"{_OPTIONS}, bool wants_entropy) -> (Tensor, Tensor normaliser, Tensor entropy)"
)
library.define(
    "catalogue_gradients(Tensor queries, Tensor items, Tensor chosen, Tensor? excluded, "
    f"{_OPTIONS}, Tensor normaliser, Tensor g_log_probability, bool wants_queries, "
    "bool wants_items) -> (Tensor, Tensor)"
)
library.define(
    f"catalogue_top_k(Tensor queries, Tensor items, Tensor? excluded, {_OPTIONS}, SymInt k) "
    "-> (Tensor scores, Tensor ids)"
)
library.define(
    "catalogue_ranks(Tensor queries, Tensor items, Tensor targets, Tensor? excluded, "
    f"{_OPTIONS}) -> Tensor"
)


class _Call(NamedTuple):
    """Hold a checked call: the function of a backend, its options and its tensors."""

    run: Callable[[Callable[[CatalogueBackend], Any]], Any]
    call: CatalogueCall
    given: Operands


def _call(name: str, tensors: Sequence[Any], options: Sequence[Any]) -> _Call:
    """Return the call, if a backend can run it; ``name`` is what ``chosen`` is called."""
    given = operands(name, *tensors)
    scores, temperature, backend, precision = CatalogueOptions(*options)
    check_options(scores, temperature)
    queries, items, _, _ = given
    product_precision(precision, queries.dtype, queries.device.type)  # raises for an unknown one
    if (precision == "fp64") != (working_dtype(queries, items) == torch.float64):
        raise ValueError(
            f"precision is {precision!r}, but queries are {queries.dtype} and items {items.dtype}: "
            "'fp64' goes with float64 and with nothing else"
        )
    products, where = PRECISIONS[precision], queries.device
    request = CatalogueRequest(items.shape[1], where.type, products)
    CATALOGUE.check_serves(backend, request, where.index)
    runs = partial(_run, backend, request, where.index)
    return _Call(runs, CatalogueCall(scores, temperature, products), given)


def _run(
    backend: str,
    request: CatalogueRequest,
    index: int | None,
    run: Callable[[CatalogueBackend], Any],
) -> Any:
    """Run an op on a backend, or on the next one if it does not start and was not requested by name."""
    if not may_pass_on(backend):
        return run(CATALOGUE.named(backend))
    found, _ = CATALOGUE.run(backend, request, index, run)
    return found


def _log_probability(
    queries: Tensor, items: Tensor, chosen: Tensor, excluded: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *options, wants_entropy = others
    run, call, given = _call("chosen", (queries, items, chosen, excluded), options)
    check_values("chosen", items, given.chosen, given.excluded)
    if not len(queries):
        nothing = queries.new_empty(0, dtype=working_dtype(queries, items))
        return nothing, nothing.clone(), nothing.clone()
    found: tuple[Tensor, Tensor, Tensor] = run(
        lambda on: on.log_probability(call, given, wants_entropy)
    )
    return found


def _gradients(
    queries: Tensor, items: Tensor, chosen: Tensor, excluded: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor]:
    *options, normaliser, g_log_probability, wants_queries, wants_items = others
    run, call, given = _call("chosen", (queries, items, chosen, excluded), options)
    check_values("chosen", items, given.chosen, given.excluded)
    normaliser = check_per_query("normaliser", normaliser, queries)
    g = check_per_query("g_log_probability", g_log_probability, queries)
    if not len(queries):
        dtype = working_dtype(queries, items)
        zeros = items.new_zeros(items.shape if wants_items else (0,), dtype=dtype)
        return queries.new_empty(queries.shape if wants_queries else (0,), dtype=dtype), zeros
    asked = AskedGradients(normaliser, g, wants_queries, wants_items)
    found: tuple[Tensor, Tensor] = run(lambda on: on.gradients(call, given, asked))
    return found


def _top_k(
    queries: Tensor, items: Tensor, excluded: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor]:
    *options, k = others
    run, call, given = _call("", (queries, items, None, excluded), options)
    check_k(k, len(items))
    check_values("", items, None, given.excluded)
    if not len(queries):
        best = queries.new_empty((0, k), dtype=working_dtype(queries, items))
        return best, best.to(torch.int64)
    found: tuple[Tensor, Tensor] = run(lambda on: on.top_k(call, given, k))
    return found


def _ranks(
    queries: Tensor, items: Tensor, targets: Tensor, excluded: Tensor | None, *options: Any
) -> Tensor:
    run, call, given = _call("targets", (queries, items, targets, excluded), options)
    if len(targets) != len(queries):
        raise ValueError(
            f"targets are {len(targets)}; there must be one for each query, {len(queries)}"
        )
    check_values("target", items, given.chosen, given.excluded)
    if not len(queries):
        return queries.new_empty(0, dtype=torch.int64)
    found: Tensor = run(lambda on: on.ranks(call, given))
    return found


def check_values(name: str, items: Tensor, ids: Tensor | None, excluded: Tensor | None) -> None:
    """Raise ``ValueError`` unless ``ids`` (R,) and ``excluded`` fit; on a CPU, or if requested."""
    if checks_values(items):
        if excluded is not None:
            check_excluded(excluded, len(items))
        if ids is not None:
            check_chosen(name, ids, excluded, len(items))


def _log_probability_fake(
    queries: Tensor, items: Tensor, chosen: Tensor, excluded: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    same_device(queries, [items, chosen, excluded])
    dtype, n = working_dtype(queries, items), queries.shape[0]
    new = queries.new_empty
    size = n if others[-1] else 0  # the entropy is wanted
    return new((n,), dtype=dtype), new((n,), dtype=dtype), new((size,), dtype=dtype)


def _gradients_fake(queries: Tensor, items: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    same_device(queries, [items, *(each for each in rest if isinstance(each, Tensor))])
    dtype = working_dtype(queries, items)
    *_, wants_queries, wants_items = rest
    return (
        queries.new_empty(queries.shape if wants_queries else (0,), dtype=dtype),
        queries.new_empty(items.shape if wants_items else (0,), dtype=dtype),
    )


def _top_k_fake(
    queries: Tensor, items: Tensor, excluded: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor]:
    same_device(queries, [items, excluded])
    shape = (queries.shape[0], others[-1])
    dtype = working_dtype(queries, items)
    return queries.new_empty(shape, dtype=dtype), queries.new_empty(shape, dtype=torch.int64)


def _ranks_fake(queries: Tensor, items: Tensor, targets: Tensor, *rest: object) -> Tensor:
    excluded = rest[0]
    assert excluded is None or isinstance(excluded, Tensor)
    same_device(queries, [items, targets, excluded])
    return torch.empty_like(targets, dtype=torch.int64)


_RUNS: dict[str, Callable[..., Any]] = {
    "catalogue_log_probability": _log_probability,
    "catalogue_gradients": _gradients,
    "catalogue_top_k": _top_k,
    "catalogue_ranks": _ranks,
}
_FAKES: dict[str, Callable[..., Any]] = {
    "catalogue_log_probability": _log_probability_fake,
    "catalogue_gradients": _gradients_fake,
    "catalogue_top_k": _top_k_fake,
    "catalogue_ranks": _ranks_fake,
}
for _name, _fake in _FAKES.items():
    # For tensors of every kind, since what no kernel can read is refused in words of our own.
    library.impl(_name, _RUNS[_name], "CompositeExplicitAutograd")
    torch.library.register_fake(f"lares_kernels::{_name}", _fake, lib=library)


def operator_for(name: str, *tensors: Tensor | None) -> Callable[..., Any]:
    """Return ``torch.ops.lares_kernels.<name>``, or its function where no dispatch is needed."""
    given = [tensor for tensor in tensors if tensor is not None]
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    # A batch of gradients (is_grads_batched=True) has no memory.
    if needs_no_dispatcher(given) and not differentiated and all(map(torch._C._has_storage, given)):
        return _RUNS[name]
    operator: Callable[..., Any] = getattr(torch.ops.lares_kernels, name)
    return operator
