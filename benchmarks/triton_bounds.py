"""What the shipped settings of the Triton kernels may take at most, by any Triton from 3.4 on."""

from __future__ import annotations

import triton

from lares_kernels.triton.settings import Setting

# Shared memory that one program can have, bytes: of the family's smallest member, and of the largest,
# to which rules with resident weights are left (lares_kernels/triton/settings.py looks before).
SHARED_LIMIT = {"sm80": 101_376, "sm90": 232_448, "sm100": 232_448, "gfx942": 65_536}
_MOST_SHARED = {**SHARED_LIMIT, "sm80": 166_912}

# Bytes of stack a thread (NVIDIA), vector registers (AMD), by version of Triton and then by family,
# kernel, products and rows of a tile. What is not named spills nothing; by Triton 3.7 nothing does.
SPILLED: dict[str, dict[tuple[str, str, str, int], int]] = {}


def most_spilled(family: str, rule: Setting) -> int:
    """That ``rule`` may spill by the Triton that is here."""
    version = ".".join(triton.__version__.split(".")[:2])
    key = (family, rule.kernel, rule.precision, rule.rows)
    return SPILLED.get(version, {}).get(key, 0)


def shared_limit(family: str, rule: Setting) -> int:
    """Bytes of shared memory that a program launched by ``rule`` can have."""
    return (_MOST_SHARED if rule.resident else SHARED_LIMIT)[family]
