"""Ask torch which card calls run on, and what of a card is too old for kernels."""

from __future__ import annotations

import torch


def current_card() -> int:
    """Return the number of torch's current card; asking torch itself could make a context there."""
    return torch.cuda.current_device() if torch.cuda.is_initialized() else 0


def too_old(
    number: int, capability: tuple[int, int], least: tuple[int, int], wants: str
) -> str | None:
    """Return why a card is of no use, or None if its compute capability is ``least`` or later.

    Args:
        number: of the card.
        capability: its own.
        least: that kernels need.
        wants: who needs it, with ``{}`` for what.
    """
    if capability >= least:
        return None
    has, needed = (".".join(map(str, pair)) for pair in (capability, least))
    return f"cuda:{number} has compute capability {has}; {wants.format(needed)}"
