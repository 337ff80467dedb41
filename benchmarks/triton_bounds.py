"""What the shipped settings of the Triton kernels may take at most, by any Triton from 3.4 on."""

from __future__ import annotations

import triton

from lares_kernels.triton.settings import Setting

# Shared memory that one program can have, bytes: of the family's smallest member, and of the largest,
# to which rules with resident weights are left (lares_kernels/triton/settings.py looks before).
SHARED_LIMIT = {"sm80": 101_376, "sm90": 232_448, "sm100": 232_448, "gfx942": 65_536}
_MOST_SHARED = {**SHARED_LIMIT, "sm80": 166_912}

# Bytes of stack a thread (NVIDIA), vector registers (AMD), by family, kernel, products and rows of a
# tile, as Triton 3.7 has them. What is not named spills nothing. docs/performance.md says why these do.
SPILLED = {
    ("sm80", "backward", "ieee", 32): 8,
    ("sm100", "backward", "ieee", 32): 32,
    ("gfx942", "backward", "ieee", 32): 4,
    ("gfx942", "backward", "ieee", 64): 4,
}
# What other versions were seen to add.
BY_OTHERS = {
    ("sm80", "backward", "half", 32): 24,
    ("sm90", "forward", "half", 32): 24,
    ("sm100", "forward", "half", 32): 24,
    ("sm100", "backward", "half", 32): 24,
    ("sm80", "backward", "ieee", 32): 112,
    ("sm100", "backward", "ieee", 32): 48,
}


# Of cores that mix whole windows, whatever the kernel and products, as Triton 3.9 has them.
OF_WINDOWS = {"sm80": 128, "sm90": 128, "sm100": 128, "gfx942": 16}


def most_spilled(family: str, rule: Setting, mixer: str = "attention") -> int:
    """That ``rule`` may spill, bytes of stack a thread (NVIDIA), vector registers (AMD)."""
    if mixer != "attention":
        return OF_WINDOWS[family]
    key = (family, rule.kernel, rule.precision, rule.rows)
    here = SPILLED.get(key, 0)
    return here if triton.__version__.startswith("3.7.") else max(here, BY_OTHERS.get(key, 0))


def shared_limit(family: str, rule: Setting) -> int:
    """Bytes of shared memory that a program launched by ``rule`` can have."""
    return (_MOST_SHARED if rule.resident else SHARED_LIMIT)[family]
