"""Score queries against a whole catalogue without storing the matrix of scores.

Every op scores rows against all items, ``s_rv = q_r . e_v / temperature`` (both normalised first for
``cosine``), a block of items at a time. ``excluded`` (R, H) lists items that a row leaves out (its
history), padded with -1: a rectangle, whose shape is all that a kernel needs to know, so that no call
synchronises with a GPU or compiles again. An item may be listed more than once.

Values of ids are checked on a CPU. On a GPU the check would synchronise; ``LARES_CHECK_VALUES=1`` asks
for it. Unchecked, an id out of range gives a log-probability and gradients of NaN, or rank -1; as an
excluded id it is ignored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lares_kernels.common.constant_result import constant_result
from lares_kernels.common.dispatcher import is_eager
from lares_kernels.common.whole import whole_number
from lares_kernels.operators import catalogue as ops
from lares_kernels.operators.once_differentiable import (
    differentiable_by,
    not_differentiable,
    without_gradient,
)
from lares_kernels.reference.catalogue import log_probability_equations
from lares_kernels.registry.backends import CATALOGUE, operators_name
from lares_kernels.spec.call import PRECISIONS, product_precision
from lares_kernels.spec.catalogue_call import (
    SHORTEST,
    CatalogueCall,
    CatalogueOptions,
    CatalogueRequest,
    Operands,
    check_excluded_shape,
    check_ids,
    check_k,
    check_matrices,
    check_options,
    checks_values,
    working_dtype,
)

REDUCTIONS = ("mean", "sum", "none")


class TopK(NamedTuple):
    """Hold ``scores`` (R, k), best first, and ``ids`` (R, k) int64; -inf and -1 where items ran
    out."""

    scores: Tensor
    ids: Tensor


class LogProbability(NamedTuple):
    """Hold the results of :func:`catalogue_log_probability` with ``return_entropy``: both have
    the shape of the queries' leading dimensions; ``entropy`` has no gradient."""

    log_probability: Tensor
    entropy: Tensor


class CatalogueFunction(torch.autograd.Function):
    """Compute log-probabilities of given items, differentiably.

    ``apply(*Operands(...), *CatalogueOptions(...), wants_entropy)``, of ``spec/catalogue_call.py``.
    Returns (log-probability (N,), log-normaliser (N,), entropy (N,) or (0,)); gradients flow from the
    first to ``queries`` and ``items``. It can be differentiated once.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.lares_kernels.catalogue_log_probability(
            *inputs
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        queries, items, chosen, excluded, *options, _ = inputs
        _, normaliser, entropy = output
        ctx.mark_non_differentiable(normaliser, entropy)
        ctx.set_materialize_grads(False)
        ctx.options = tuple(options)
        ctx.save_for_backward(queries, items, chosen, excluded, normaliser)

    @staticmethod
    def backward(ctx: Any, g_log_probability: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        wants_queries, wants_items = ctx.needs_input_grad[:2]
        if g_log_probability is None:
            return (None,) * 9
        queries, items, chosen, excluded, normaliser = ctx.saved_tensors
        run = ops.operator_for("catalogue_gradients", queries, items, g_log_probability)
        g_queries, g_items = run(
            queries,
            items,
            chosen,
            excluded,
            *ctx.options,
            normaliser,
            g_log_probability,
            wants_queries,
            wants_items,
        )
        return (
            g_queries.to(queries.dtype) if wants_queries else None,
            g_items.to(items.dtype) if wants_items else None,
            *(None,) * 7,
        )


differentiable_by(ops.library, "catalogue_log_probability", CatalogueFunction)
not_differentiable(ops.library, "catalogue_gradients")
without_gradient(ops.library, "catalogue_top_k")
without_gradient(ops.library, "catalogue_ranks")


@constant_result
def _backend_name(device_type: str, precision: str, width: int, index: int | None) -> str:
    request = CatalogueRequest(width, device_type, PRECISIONS[precision])
    return operators_name(CATALOGUE.choose(request, index).backend)


class _Checked(NamedTuple):
    """Hold a call's checked arguments, as the operators take them."""

    queries: Tensor
    items: Tensor
    excluded: Tensor | None
    options: CatalogueOptions


def _check(
    queries: Tensor,
    items: Tensor,
    excluded: Tensor | None,
    scores: str,
    temperature: float | Tensor,
    precision: str | None,
) -> _Checked:
    check_options(scores, 1.0 if isinstance(temperature, Tensor) else temperature)
    check_matrices(queries, items)
    if excluded is not None:
        excluded = check_excluded_shape(excluded, queries.shape[0], queries.device)
    device_type = queries.device.type
    products = product_precision(precision, queries.dtype, device_type)
    if torch.float64 in (queries.dtype, items.dtype):
        products = "fp64"
    elif products == "fp64":
        raise ValueError(f"precision is 'fp64', but queries are {queries.dtype}")
    backend = _backend_name(device_type, products, items.shape[1], queries.device.index)
    if isinstance(temperature, Tensor):
        queries, items = _heated(queries, items, scores, temperature)
        scores, temperature = "dot", 1.0
    flat = queries.reshape(-1, items.shape[1])
    options = CatalogueOptions(scores, float(temperature), backend, products)
    return _Checked(flat, items, excluded, options)


def _heated(
    queries: Tensor, items: Tensor, scores: str, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Return queries and items whose dot products are the scores, so that autograd
    differentiates the temperature."""
    if temperature.numel() != 1 or not temperature.dtype.is_floating_point:
        raise ValueError(
            f"temperature has shape {tuple(temperature.shape)} of {temperature.dtype}; a tensor must "
            "hold one floating-point number"
        )
    if is_eager(temperature) and checks_values(temperature):
        check_options(scores, float(temperature.detach()))
    dtype = working_dtype(queries, items)
    queries = queries.to(dtype)
    if scores == "cosine":
        queries = functional.normalize(queries, dim=-1, eps=SHORTEST)
        items = _unit_items(items.to(dtype))
    return queries / temperature.reshape(()).to(dtype), items


def _unit_items(items: Tensor) -> Tensor:
    """Normalise items (V, d) to length 1, under autograd.

    One that is not finite is NaN and takes the gradient that comes as it is: of an item that everyone
    excludes that is zero, which zero times NaN is not.
    """
    finite = items.detach().isfinite().all(dim=1, keepdim=True)
    if is_eager(items) and checks_values(items) and bool(finite.all()):
        return functional.normalize(items, dim=-1, eps=SHORTEST)
    unit = functional.normalize(items.masked_fill(~finite, 0.0), dim=-1, eps=SHORTEST)
    return torch.where(finite, unit, items + float("nan"))


def catalogue_log_probability(
    queries: Tensor,
    items: Tensor,
    chosen: Tensor,
    *,
    scores: str = "dot",
    temperature: float | Tensor = 1.0,
    excluded: Tensor | None = None,
    precision: str | None = None,
    return_entropy: bool = False,
) -> Tensor | LogProbability:
    """Compute the log-probability of a given item for every query: ``s_c - log sum_v exp(s_v)``.

    LARES, arXiv 2505.16865, section 3.4: ``queries`` (R, T, d) are the states of T reasoning steps, of
    which each predicts the same item. Gradients flow to ``queries`` and ``items``; both are dense.

    Args:
        queries: (R, d) or (R, T, d).
        items: (V, d), the catalogue; any ``V`` from 1.
        chosen: (R,) integers in ``0..V-1``.
        scores: ``dot`` or ``cosine``.
        temperature: positive divisor of the scores. Gradients flow to a tensor of one number.
        excluded: (R, H) ids that a row leaves out of the sum, padded with -1.
        precision: of products, as in :func:`lares_kernels.refine`; sums are at least float32.
        return_entropy: also ``-sum_v p_v log p_v`` of every query, without a gradient.

    Returns:
        (R,) or (R, T), float32 (float64 for float64 input); :class:`LogProbability` if the entropy
        is requested.

    Raises:
        ValueError, TypeError: a tensor or an option does not fit, or a row excludes its chosen item;
            the message names it.
        BackendError: the requested backend cannot serve this call.
        RuntimeError: second or forward-mode derivatives are requested, which only backend
            ``equations`` has.
    """
    checked = _check(queries, items, excluded, scores, temperature, precision)
    if queries.dim() not in (2, 3):
        raise ValueError(
            f"queries has shape {tuple(queries.shape)}; it must be (R, d) or (R, T, d)"
        )
    chosen = check_ids("chosen", chosen, tuple(queries.shape[:1]), queries.device)
    shape = queries.shape[:-1]
    if checked.queries.shape[0] == 0:
        ops.check_values("chosen", items, chosen, checked.excluded)
        # A sum over nothing, but still a function of its inputs.
        nothing = checked.queries.sum(1) + 0.0 * checked.items.sum()
        nothing = nothing.to(working_dtype(queries, items)).reshape(shape)
        return LogProbability(nothing, nothing.detach()) if return_entropy else nothing
    if checked.options.backend == "equations":
        made, divisor, _, products = checked.options
        options = CatalogueCall(made, divisor, PRECISIONS[products])
        ops.check_values("chosen", items, chosen, checked.excluded)
        given = Operands(checked.queries, checked.items, chosen, checked.excluded)
        found, entropy = log_probability_equations(options, given)
    else:
        run = ops.operator_for("catalogue_log_probability", checked.queries, checked.items)
        found, _, entropy = run(
            checked.queries,
            checked.items,
            chosen,
            checked.excluded,
            *checked.options,
            return_entropy,
        )
    if return_entropy:
        return LogProbability(found.reshape(shape), entropy.detach().reshape(shape))
    reshaped: Tensor = found.reshape(shape)
    return reshaped


def catalogue_cross_entropy(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    scores: str = "dot",
    temperature: float | Tensor = 1.0,
    excluded: Tensor | None = None,
    reduction: str = "mean",
    precision: str | None = None,
) -> Tensor:
    """Compute the cross entropy of each row's target against the whole catalogue.

    Args:
        queries: (R, d).
        items: (V, d), the catalogue; any ``V`` from 1.
        targets: (R,) integers in ``0..V-1``.
        scores, temperature, excluded, precision: as in :func:`catalogue_log_probability`.
        reduction: ``mean``, ``sum`` or ``none``.

    Returns:
        A scalar, or (R,) for ``none``; float32 (float64 for float64 input).

    Raises:
        ValueError: a tensor or an option does not fit, or a row excludes its target; the message
            names it.
        BackendError: the requested backend cannot serve this call.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it must be one of {', '.join(REDUCTIONS)}")
    if queries.dim() != 2:
        raise ValueError(f"queries has shape {tuple(queries.shape)}; it must be (R, d)")
    found = catalogue_log_probability(
        queries,
        items,
        targets,
        scores=scores,
        temperature=temperature,
        excluded=excluded,
        precision=precision,
    )
    assert isinstance(found, Tensor)
    losses = -found
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


@torch.no_grad()
def catalogue_top_k(
    queries: Tensor,
    items: Tensor,
    k: int,
    *,
    scores: str = "dot",
    temperature: float | Tensor = 1.0,
    excluded: Tensor | None = None,
    precision: str | None = None,
) -> TopK:
    """Return the ``k`` best-scoring items of each row, best first; ties go to the lower id.

    Args:
        queries: (R, d).
        items: (V, d), the catalogue.
        k: number of items, in ``1..V``.
        scores, temperature, excluded, precision: as in :func:`catalogue_log_probability`.

    Returns:
        :class:`TopK`, without a gradient. Items that a row excludes, and scores that are NaN or -inf,
        are left out; if fewer than ``k`` remain, the last places hold -inf and -1.

    Raises:
        ValueError: a tensor or an option does not fit; the message names it.
        BackendError: the requested backend cannot serve this call.
    """
    checked = _check(queries, items, excluded, scores, temperature, precision)
    _check_rows(queries)
    k = whole_number("k", k)
    check_k(k, items.shape[0])
    return TopK(
        *ops.operator_for("catalogue_top_k", checked.queries, checked.items)(
            checked.queries, checked.items, checked.excluded, *checked.options, k
        )
    )


@torch.no_grad()
def catalogue_ranks(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    scores: str = "dot",
    temperature: float | Tensor = 1.0,
    excluded: Tensor | None = None,
    precision: str | None = None,
) -> Tensor:
    """Compute the rank (0 is best) of each row's target among the items it does not exclude.

    An item that scores exactly like the target ranks before it: the rank is the number of other items
    that score at least as high.

    Args:
        queries: (R, d).
        items: (V, d), the catalogue.
        targets: (R,) integers in ``0..V-1``.
        scores, temperature, excluded, precision: as in :func:`catalogue_log_probability`.

    Returns:
        (R,) int64; -1 for a row with a score that is NaN.

    Raises:
        ValueError: a tensor or an option does not fit, or a row excludes its target; the message
            names it.
        BackendError: the requested backend cannot serve this call.
    """
    checked = _check(queries, items, excluded, scores, temperature, precision)
    _check_rows(queries)
    targets = check_ids("targets", targets, tuple(queries.shape[:1]), queries.device)
    found: Tensor = ops.operator_for("catalogue_ranks", checked.queries, checked.items)(
        checked.queries, checked.items, targets, checked.excluded, *checked.options
    )
    return found


def _check_rows(queries: Tensor) -> None:
    if queries.dim() != 2:
        raise ValueError(f"queries has shape {tuple(queries.shape)}; it must be (R, d)")
