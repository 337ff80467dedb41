"""Generate random words by Philox4x32-10, the counter-based generator of every random decision.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A draw is a
pure function of a 64-bit key and a 128-bit counter, so any backend can repeat any draw anywhere.
"""

from __future__ import annotations

from torch import Tensor

MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, seed: int | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute four 32-bit words for every counter.

    Args:
        c0, c1, c2, c3: int64 tensors holding the four 32-bit counter words; they broadcast.
        seed: the 64-bit key, a number or a tensor () int64; its low half is the first key word.

    Returns:
        Four int64 tensors of the broadcast shape with values in ``[0, 2^32)``.
    """
    key0, key1 = seed & MASK32, (seed >> 32) & MASK32
    for _ in range(_ROUNDS):
        # A 32x32-bit product fits 64 bits; int64 wraps it, which leaves both halves' bits right.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, high1 = (product0 >> 32) & MASK32, (product1 >> 32) & MASK32
        c0, c1, c2, c3 = (
            high1 ^ c1 ^ key0,
            product1 & MASK32,
            high0 ^ c3 ^ key1,
            product0 & MASK32,
        )
        key0, key1 = (key0 + _KEY_INCREMENTS[0]) & MASK32, (key1 + _KEY_INCREMENTS[1]) & MASK32
    return c0, c1, c2, c3
