"""Lengths of the sequences in a batch: as training prefixes have them, geometric, or all full.

``PREFIXES`` counts the training prefixes of Amazon Beauty (2014, 5-core; 22,363 users) by length. It
was made so: take each user's items in order, leave out the last two (validation and test), and of what
remains take every prefix that has at least one item before its target, cut to its last 20 items. That
is 131,413 prefixes with a mean of 6.7 items; the last entry holds all of 20 items and more.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Entry i: prefixes of i + 1 items.
PREFIXES = (
    *(22363, 22363, 15201, 10980, 8300, 6489, 5123, 4242, 3547, 2989),
    *(2550, 2189, 1927, 1720, 1507, 1366, 1248, 1136, 1019, 15154),
)
DISTRIBUTIONS = ("prefixes", "geometric", "full")


def draw_lengths(distribution: str, batch: int, longest: int, seed: int = 0) -> Tensor:
    """``batch`` lengths in ``1..longest``, (B,) int64, the same for the same arguments.

    Args:
        distribution: ``prefixes`` draws from the table above (``longest`` must be its length, 20);
            ``geometric`` has a mean near ``longest / 4`` and is cut at ``longest``; ``full`` is
            ``longest`` throughout.
    """
    generator = torch.Generator().manual_seed(seed)
    if distribution == "prefixes":
        if longest != len(PREFIXES):
            raise ValueError(f"prefixes are at most {len(PREFIXES)} items long, not {longest}")
        counts = torch.tensor(PREFIXES, dtype=torch.float64)
        return torch.multinomial(counts, batch, replacement=True, generator=generator) + 1
    if distribution == "geometric":
        drawn = torch.empty(batch).geometric_(min(1.0, 4.0 / longest), generator=generator)
        return drawn.clamp_(1, longest).long()
    if distribution == "full":
        return torch.full((batch,), longest)
    raise ValueError(f"distribution is {distribution!r}; it must be one of {DISTRIBUTIONS}")
