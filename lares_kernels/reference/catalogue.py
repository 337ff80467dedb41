"""Compute the catalogue ops in plain PyTorch over blocks of items; it serves wherever torch runs.

With ``s`` the scores of a row and ``Z = log sum_v exp(s_v)`` over the items it does not exclude, the
log-probability of item ``c`` is ``s_c - Z``, its gradient by ``s_v`` is ``[v = c] - exp(s_v - Z)``, and
the entropy is ``-sum_v exp(s_v - Z) (s_v - Z)``.

A score that is NaN or +inf makes its row's log-probability, entropy and gradients NaN; one of -inf has
probability zero. An item that a row excludes does not affect the row, whatever its values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.nn import functional

from lares_kernels.reference.backend import PlainTorch
from lares_kernels.registry.backends import register_catalogue
from lares_kernels.spec.call import FLOAT_TYPES
from lares_kernels.spec.catalogue_call import (
    SHORTEST,
    AskedGradients,
    CatalogueCall,
    Operands,
    in_order,
    working_dtype,
)
from lares_kernels.spec.serves import ANY_WIDTH, ServesCatalogues

# Scores in memory at a time.
_SCORES_AT_ONCE = 1 << 21
NO_ITEM = -1


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute ``a b`` with factors rounded to ``dtype``, otherwise to float32's accuracy."""
    if dtype not in (torch.float64, torch.float32):
        a, b = a.to(dtype).to(a.dtype), b.to(dtype).to(b.dtype)
    with torch.autocast(a.device.type, enabled=False):
        found: Tensor = a @ b
    return found


def prepared_queries(call: CatalogueCall, queries: Tensor) -> Tensor:
    """Return queries scaled so that their products with the prepared items are the scores."""
    if call.cosine:
        queries = functional.normalize(queries, dim=-1, eps=SHORTEST)
    return queries / call.temperature


def prepared_items(call: CatalogueCall, items: Tensor) -> Tensor:
    """Return the items as they are multiplied: normalised for cosine."""
    if not call.cosine:
        return items
    unit: Tensor = functional.normalize(items, dim=-1, eps=SHORTEST)
    return unit


def normalise_backward(gradient: Tensor, rows: Tensor) -> Tensor:
    """Return the gradient by ``rows`` from the ``gradient`` by their normalised form."""
    length = rows.norm(dim=-1, keepdim=True)
    unit = rows / length.clamp_min(SHORTEST)
    along = (gradient * unit).sum(dim=-1, keepdim=True) * (length > SHORTEST)
    found: Tensor = (gradient - along * unit) / length.clamp_min(SHORTEST)
    # Of an item that is not finite and that everyone excludes zero, too.
    return found.where((gradient != 0).any(dim=-1, keepdim=True), 0.0)


def repeat_for_queries(of_rows: Tensor, n_queries: int) -> Tensor:
    """Repeat each of R rows for its N / R queries."""
    return of_rows.repeat_interleave(n_queries // len(of_rows), dim=0)


def not_finite_for_some(items: Tensor, hidden: Tensor) -> Tensor:
    """Mark items (B, d) that are not finite and that a row of ``hidden`` (N, B) excludes."""
    return ~items.isfinite().all(dim=1) & hidden.any(dim=0)


class Block(NamedTuple):
    """Hold some consecutive items.

    Attributes:
        first: id of the first item.
        items: (B, d) prepared items.
        scores: (N, B) scores of all rows; -inf where a row excludes the item.
        left_out: (rows, columns) of excluded items, or None if there are none.
    """

    first: int
    items: Tensor
    scores: Tensor
    left_out: tuple[Tensor, Tensor] | None

    def held(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return (rows, columns) of the ``ids`` (N,) that are among these items."""
        rows = ((ids >= self.first) & (ids < self.first + len(self.items))).nonzero()[:, 0]
        return rows, ids[rows] - self.first

    def g_scores(self, normaliser: Tensor, g_normaliser: Tensor) -> Tensor:
        """Return the gradient (N, B) by the scores, exactly 0 where a row excludes the item."""
        found = (self.scores - normaliser[:, None]).exp() * g_normaliser[:, None]
        if self.left_out is not None:
            found[self.left_out] = 0.0
        return found

    def sums(self, g_scores: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply ``g_scores`` (N, B) by the items that each row does not exclude, to (N, d).

        Zero times NaN is NaN, so a non-finite item that some rows exclude is added to the other rows
        separately.
        """
        if self.left_out is None:
            return product(g_scores, self.items, dtype)
        hidden = torch.zeros_like(g_scores, dtype=torch.bool)
        hidden[self.left_out] = True
        apart = not_finite_for_some(self.items, hidden)
        found = product(g_scores, self.items.masked_fill(apart[:, None], 0.0), dtype)
        for place in apart.nonzero()[:, 0].tolist():
            added = g_scores[:, place, None] * self.items[place]
            found += added.masked_fill(hidden[:, place, None], 0.0)
        return found


def blocks(
    call: CatalogueCall, prepared: Tensor, items: Tensor, excluded: Tensor | None
) -> Iterator[Block]:
    """Yield the catalogue block by block."""
    n_rows, n_items = len(prepared), len(items)
    size = min(n_items, max(64, _SCORES_AT_ONCE // max(n_rows, 1)))
    if excluded is not None:
        ordered = repeat_for_queries(in_order(excluded, n_items), n_rows)
    for first in range(0, n_items, size):
        part = prepared_items(call, items[first : first + size].to(prepared.dtype))
        scores = product(prepared, part.mT, call.product_dtype)
        left_out = None
        if excluded is not None:
            inside = (ordered >= first) & (ordered < first + len(part))
            rows, places = inside.nonzero(as_tuple=True)
            left_out = rows, ordered[rows, places] - first
            scores[left_out] = float("-inf")
        yield Block(first, part, scores, left_out)


class ReferenceCatalogue(PlainTorch):
    """Compute every op streamed; the only backend for float64."""

    serves = ServesCatalogues(widths=dict.fromkeys(FLOAT_TYPES, ANY_WIDTH))

    def log_probability(
        self, call: CatalogueCall, given: Operands, wants_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        queries, items, chosen, excluded = given
        prepared = prepared_queries(call, queries.to(working_dtype(queries, items)))
        normaliser = prepared.new_full((len(prepared),), float("-inf"))
        chosen = repeat_for_queries(chosen, len(prepared))
        chosen_score = torch.zeros_like(normaliser)
        for block in blocks(call, prepared, items, excluded):
            rows, columns = block.held(chosen)
            chosen_score[rows] = block.scores[rows, columns]
            normaliser = torch.logaddexp(normaliser, block.scores.logsumexp(dim=1))
        # As softmax has it: infinity less infinity.
        normaliser = normaliser.masked_fill(normaliser == float("inf"), float("nan"))
        entropy = normaliser.new_zeros(len(prepared) if wants_entropy else 0)
        for block in blocks(call, prepared, items, excluded) if wants_entropy else ():
            log_shares = block.scores - normaliser[:, None]
            shares = log_shares.exp()
            entropy -= (shares * log_shares.where(shares > 0, 0.0)).sum(dim=1)
        return chosen_score - normaliser, normaliser, entropy

    def gradients(
        self, call: CatalogueCall, given: Operands, asked: AskedGradients
    ) -> tuple[Tensor, Tensor]:
        queries, items, chosen, excluded = given
        normaliser, g_log_probability, wants_queries, wants_items = asked
        dtype = working_dtype(queries, items)
        queries = queries.to(dtype)
        prepared = prepared_queries(call, queries)
        chosen = repeat_for_queries(chosen, len(prepared))
        g_queries = torch.zeros_like(prepared) if wants_queries else prepared.new_empty(0)
        g_items = items.new_empty(items.shape if wants_items else (0,), dtype=dtype)
        for block in blocks(call, prepared, items, excluded):
            g_scores = block.g_scores(normaliser, -g_log_probability)
            rows, columns = block.held(chosen)
            g_scores[rows, columns] += g_log_probability[rows]
            if wants_queries:
                g_queries += block.sums(g_scores, call.product_dtype)
            if wants_items:
                end = block.first + len(block.items)
                part = product(g_scores.mT, prepared, call.product_dtype)
                if call.cosine:
                    part = normalise_backward(part, items[block.first : end].to(dtype))
                g_items[block.first : end] = part
        if wants_queries:
            g_queries /= call.temperature
            if call.cosine:
                g_queries = normalise_backward(g_queries, queries)
        return g_queries, g_items

    def top_k(self, call: CatalogueCall, given: Operands, k: int) -> tuple[Tensor, Tensor]:
        queries, items, _, excluded = given
        prepared = prepared_queries(call, queries.to(working_dtype(queries, items)))
        best = prepared.new_full((len(prepared), k), float("-inf"))
        ids = torch.full(best.shape, NO_ITEM, dtype=torch.int64, device=best.device)
        for block in blocks(call, prepared, items, excluded):
            scores = block.scores.where(~block.scores.isnan(), float("-inf"))
            here = torch.arange(block.first, block.first + scores.shape[1], device=ids.device)
            # What was found before has lower ids, and a stable sort leaves it in front.
            scores, order = torch.cat([best, scores], dim=1).sort(
                dim=1, descending=True, stable=True
            )
            everywhere = torch.cat([ids, here.expand(len(ids), -1)], dim=1)
            best, ids = scores[:, :k], everywhere.gather(1, order[:, :k])
        return best.contiguous(), ids.where(best > float("-inf"), NO_ITEM)

    def ranks(self, call: CatalogueCall, given: Operands) -> Tensor:
        queries, items, targets, excluded = given
        prepared = prepared_queries(call, queries.to(working_dtype(queries, items)))
        wanted = prepared.new_zeros(len(prepared))
        for block in blocks(call, prepared, items, None):
            rows, columns = block.held(targets)
            wanted[rows] = block.scores[rows, columns]
        ranks = torch.full_like(targets, -1)  # the target itself is counted too
        broken = torch.zeros_like(targets, dtype=torch.bool)
        for block in blocks(call, prepared, items, excluded):
            at_least = block.scores >= wanted[:, None]
            if block.left_out is not None:
                at_least[block.left_out] = False
            ranks += at_least.sum(dim=1)
            broken |= block.scores.isnan().any(dim=1)
        return ranks.masked_fill(broken, -1)


class EquationsCatalogue(ReferenceCatalogue):
    """Compute the log-probability as written from a matrix of scores, differentiated by autograd.

    It serves tests and double backward, and is used only if requested.
    """

    name = "equations"
    preference = -10
    automatic = False


def log_probability_equations(call: CatalogueCall, given: Operands) -> tuple[Tensor, Tensor]:
    """Return (log-probability (N,), entropy (N,)) of dense scores."""
    queries, items, chosen, excluded = given
    dtype = working_dtype(queries, items)
    prepared, items = prepared_queries(call, queries.to(dtype)), items.to(dtype)

    def scores_of(queries: Tensor, items: Tensor) -> Tensor:
        return product(queries, prepared_items(call, items).mT, call.product_dtype)

    if excluded is None:
        scores = scores_of(prepared, items)
    else:
        ordered = repeat_for_queries(in_order(excluded, len(items)), len(prepared))
        hidden = torch.zeros(
            len(prepared), len(items) + 1, dtype=torch.bool, device=prepared.device
        ).scatter(1, ordered, True)[:, :-1]
        # A product's gradients by queries are sums over all items, and zero times NaN is NaN: so an
        # item that is not finite is multiplied separately, for the rows that do not exclude it.
        # Values of a torch.func.vmap batch cannot be read.
        plain = peek_interpreter_stack() is None
        apart = not_finite_for_some(items.detach(), hidden) if plain else hidden.any(dim=0)
        scores = scores_of(prepared, items.masked_fill(apart[:, None], 0.0))
        for place in (apart & ~hidden.all(dim=0)).nonzero()[:, 0].tolist():
            seeing = prepared.masked_fill(hidden[:, place, None], 0.0)
            here = torch.arange(len(items), device=items.device) == place
            scores = torch.where(here, scores_of(seeing, items[place : place + 1]), scores)
        scores = scores.masked_fill(hidden, float("-inf"))
    every = scores.log_softmax(dim=1)
    shares = every.exp()
    entropy = -(shares * every.masked_fill(shares == 0, 0.0)).sum(dim=1)
    chosen = repeat_for_queries(chosen, len(prepared))
    return every.gather(1, chosen[:, None])[:, 0], entropy


register_catalogue(ReferenceCatalogue())
register_catalogue(EquationsCatalogue())
