"""Random catalogue calls for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import lares_kernels as lk


@dataclass(frozen=True)
class CatalogueProblem:
    """Queries (R, T, d), items (V, d), one item a row, excluded items (R, H) or None; in float64."""

    queries: Tensor
    items: Tensor
    chosen: Tensor
    excluded: Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def to(self, dtype: torch.dtype) -> CatalogueProblem:
        return replace(self, queries=self.queries.to(dtype), items=self.items.to(dtype))

    def on(self, device: str) -> CatalogueProblem:
        tensors = {name: getattr(self, name) for name in ("queries", "items", "chosen", "excluded")}
        return replace(
            self, **{name: t if t is None else t.to(device) for name, t in tensors.items()}
        )

    def results(self, backend: str, **changes: Any) -> dict[str, Tensor]:
        """Log-probability and entropy, and gradients of a linear function of the first."""
        queries, items = (t.clone().requires_grad_() for t in (self.queries, self.items))
        options = {"excluded": self.excluded, **self.options, **changes}
        with lk.use_backend(backend):
            out = lk.catalogue_log_probability(
                queries, items, self.chosen, return_entropy=True, **options
            )
            assert isinstance(out, lk.LogProbability)
            weights = self.weights(out.log_probability.shape).to(out.log_probability)
            grads = torch.autograd.grad((out.log_probability * weights).sum(), [queries, items])
        return {
            "log_probability": out.log_probability.detach(),
            "entropy": out.entropy,
            "g_queries": grads[0],
            "g_items": grads[1],
        }

    @staticmethod
    def weights(shape: tuple[int, ...]) -> Tensor:
        return torch.linspace(-1, 2, shape.numel(), dtype=torch.float64).reshape(shape)  # type: ignore[attr-defined]

    def scores(self) -> Tensor:
        """(R, T, V), -inf where a row excludes the item."""
        queries, items = self.queries, self.items
        if self.options.get("scores") == "cosine":
            queries = torch.nn.functional.normalize(queries, dim=-1)
            items = torch.nn.functional.normalize(items, dim=-1)
        scores = queries @ items.mT / self.options.get("temperature", 1.0)
        for row, ids in enumerate([] if self.excluded is None else self.excluded.tolist()):
            scores[row, :, [i for i in ids if i >= 0]] = float("-inf")
        return scores

    def tolerances(self) -> dict[str, float]:
        """What rounding to float32 explains, for the norm of each result's error."""
        scores = self.scores()
        size = 1.0 + float(scores[scores.isfinite()].abs().max())
        scale = 1.0 / self.options.get("temperature", 1.0)
        weight = float(self.weights(scores.shape[:2]).norm())
        cosine = self.options.get("scores") == "cosine"
        longest = [
            1.0 if cosine else float(t.norm(dim=-1).max()) for t in (self.queries, self.items)
        ]
        # Normalising divides gradients by the length.
        shortest = [
            float(t.norm(dim=-1).min()) if cosine else 1.0 for t in (self.queries, self.items)
        ]
        unit = 4e-6 * size
        return {
            "log_probability": unit * scores.shape[0] ** 0.5 * scores.shape[1] ** 0.5,
            "entropy": unit * size * scores.shape[0] ** 0.5 * scores.shape[1] ** 0.5,
            "g_queries": unit * scale * weight * longest[1] / shortest[0],
            "g_items": unit * scale * weight * longest[0] / shortest[1],
        }


def make_catalogue(
    n_rows: int = 7,
    n_items: int = 333,
    width: int = 16,
    *,
    steps: int = 1,
    n_excluded: int = 0,
    seed: int = 0,
    scale: float = 1.0,
    **options: Any,
) -> CatalogueProblem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    chosen = torch.randint(n_items, (n_rows,), generator=generator)
    excluded = None
    if n_excluded:
        excluded = torch.randint(-1, n_items, (n_rows, n_excluded), generator=generator)
        excluded = excluded.masked_fill(excluded == chosen[:, None], -1)
    queries, items = scale * normal(n_rows, steps, width), normal(n_items, width)
    return CatalogueProblem(queries, items, chosen, excluded, options)


def whole_numbers_catalogue(
    n_rows: int, n_items: int, width: int, n_excluded: int = 0, seed: int = 0
) -> CatalogueProblem:
    """Small whole numbers: scores are exact in every precision, and full of ties."""
    problem = make_catalogue(n_rows, n_items, width, n_excluded=n_excluded, seed=seed)
    return replace(
        problem,
        queries=problem.queries.round().clamp(-2, 2),
        items=problem.items.round().clamp(-2, 2),
    )


def ranks_by_hand(problem: CatalogueProblem) -> Tensor:
    scores = problem.scores()[:, 0]
    wanted = scores.gather(1, problem.chosen[:, None])
    return (scores >= wanted).sum(1) - 1


def top_k_by_hand(problem: CatalogueProblem, k: int) -> tuple[Tensor, Tensor]:
    scores, ids = problem.scores()[:, 0].sort(dim=1, descending=True, stable=True)
    scores, ids = scores[:, :k], ids[:, :k]
    return scores, ids.masked_fill(scores == float("-inf"), -1)
