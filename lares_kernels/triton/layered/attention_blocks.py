"""Choose the blocks of the layered plan's attention, by precision and width of a head."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from lares_kernels.triton.launch.constants import padded


class Blocks(NamedTuple):
    """Hold a block's queries and keys, and a program's warps."""

    side: int
    warps: int


# By precision of the products and padded width of a head: forward's and backward's blocks. Larger ones
# spill registers on some family of GPUs; products in ieee float32 are taken without tensor cores.
_BLOCKS = {
    "half": {
        32: (Blocks(64, 4), Blocks(64, 4)),
        64: (Blocks(64, 4), Blocks(32, 4)),
        128: (Blocks(32, 4), Blocks(32, 4)),
        256: (Blocks(32, 4), Blocks(16, 8)),
    },
    "tf32": {
        32: (Blocks(32, 4), Blocks(32, 4)),
        64: (Blocks(32, 4), Blocks(32, 4)),
        128: (Blocks(32, 8), Blocks(16, 4)),
        256: (Blocks(16, 4), Blocks(16, 8)),
    },
    "ieee": {
        32: (Blocks(32, 4), Blocks(16, 4)),
        64: (Blocks(32, 4), Blocks(16, 4)),
        128: (Blocks(16, 4), Blocks(16, 4)),
        256: (Blocks(16, 4), Blocks(16, 4)),
    },
}


@cache
def attention_blocks(precision: str, head: int, longest: int) -> tuple[Blocks, Blocks]:
    """Return forward's and backward's blocks for padded heads of ``head`` and sequences up to
    ``longest``."""
    forward, backward = (
        _shrunk(blocks, padded(longest), precision == "half" and head <= 32)
        for blocks in _BLOCKS[precision][max(head, 32)]
    )
    return forward, backward


def _shrunk(blocks: Blocks, longest: int, small: bool) -> Blocks:
    """Shrink blocks to the sequences; ``small`` ones need fewer warps."""
    side = min(blocks.side, longest)
    return Blocks(side, 2 if small and side <= 32 else blocks.warps)
