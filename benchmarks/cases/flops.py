"""How many floating-point operations the recurrence needs for the real tokens of a batch."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.cases.op import Case

# Forward, and twice as much for the gradients; recomputation is not work asked for.
BACKWARD_FACTOR = 3


def flop_count(
    lengths: Iterable[int],
    *,
    d_model: int,
    d_ff: int,
    n_layers: int,
    steps: int,
    backward: bool,
    mixer: str = "attention",
) -> int:
    """Multiplications and additions of the matrix products, padding left out.

    Per layer and step each token costs ``6 d^2`` (query, key and value), ``2 d^2`` (output product)
    and ``4 d f`` (feed-forward), together ``24 d^2`` where ``f = 4 d``; each causal pair of a query and
    a key costs ``4 d`` (the score, and the weighted sum of values). A sequence of ``n`` tokens has
    ``n (n + 1) / 2`` pairs. LayerNorm, softmax, activations and dropout are not counted. Forward and
    backward together count three times the forward pass.

    Mixer ``bsarec`` counts the same, ``filter`` the feed-forward alone: what mixes along the window can
    be computed in several ways, of different cost. Give them the window as every length.
    """
    given = list(lengths)
    tokens = sum(given)
    pairs = sum(n * (n + 1) // 2 for n in given)
    attention = tokens * 8 * d_model**2 + pairs * 4 * d_model
    per_layer = tokens * 4 * d_model * d_ff + (0 if mixer == "filter" else attention)
    return per_layer * n_layers * steps * (BACKWARD_FACTOR if backward else 1)


def case_flops(case: Case, lengths: Iterable[int]) -> int:
    """:func:`flop_count` of a case with those lengths."""
    same = ("d_model", "d_ff", "n_layers", "steps", "backward", "mixer")
    return flop_count(lengths, **{name: getattr(case, name) for name in same})
