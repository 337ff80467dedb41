"""What the shipped settings of the Triton kernels may take at most, by any Triton from 3.4 on."""

from __future__ import annotations

import triton

from lares_kernels.triton.rules import Setting

# Shared memory that one program can have, bytes: of the family's smallest member, and of the largest,
# to which rules with resident weights are left (lares_kernels/triton/settings.py looks before).
SHARED_LIMIT = {"sm80": 101_376, "sm90": 232_448, "sm100": 232_448, "gfx942": 65_536}
_MOST_SHARED = {**SHARED_LIMIT, "sm80": 166_912}

# By Triton 3.6, 3.7 and 3.9 no shipped setting spills of those that were compiled (docs/performance.md
# says which). What others were seen to, by family, kernel, products and rows of a tile: bytes of stack
# a thread.
SPILLED_BY_OTHERS = {
    ("sm80", "backward", "half", 32): 24,
    ("sm90", "forward", "half", 32): 24,
    ("sm100", "forward", "half", 32): 24,
    ("sm100", "backward", "half", 32): 24,
}
_NONE_SPILLED = ("3.6.", "3.7.", "3.9.")


def most_spilled(family: str, rule: Setting) -> int:
    """That ``rule`` may spill, bytes of stack a thread (NVIDIA), vector registers (AMD)."""
    if triton.__version__.startswith(_NONE_SPILLED):
        return 0
    return SPILLED_BY_OTHERS.get((family, rule.kernel, rule.precision, rule.rows), 0)


def shared_limit(family: str, rule: Setting) -> int:
    """Bytes of shared memory that a program launched by ``rule`` can have."""
    return (_MOST_SHARED if rule.resident else SHARED_LIMIT)[family]
