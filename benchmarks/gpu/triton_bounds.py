"""What the shipped settings of the Triton kernels may take at most, by any Triton from 3.4 on."""

from __future__ import annotations

import triton

from lares_kernels.triton.launch.rules import Setting

# Shared memory that one program can have, bytes: of the family's smallest member, and of the largest,
# to which rules with resident weights are left (lares_kernels/triton/launch/settings.py looks before).
SHARED_LIMIT = {"sm80": 101_376, "sm90": 232_448, "sm100": 232_448, "gfx942": 65_536}
_MOST_SHARED = {**SHARED_LIMIT, "sm80": 166_912}

# What shipped settings were seen to spill, by version of Triton; by family, kernel, products and rows
# of a tile: bytes of stack a thread (NVIDIA), vector registers (AMD). docs/results/performance.md says
# which of them a version has compiled.
SPILLED: dict[str, dict[tuple[str, str, str, int], int]] = {
    "3.6": {
        ("sm80", "forward", "half", 32): 64,
        ("sm80", "forward", "ieee", 32): 8,
        ("sm80", "backward", "half", 32): 8,
        ("sm90", "forward", "half", 32): 8,
        ("sm90", "backward", "half", 32): 8,
    },
    "3.7": {},
    "3.9": {},
}
SPILLED_BY_OTHERS = {
    ("sm80", "backward", "half", 32): 24,
    ("sm90", "forward", "half", 32): 24,
    ("sm100", "forward", "half", 32): 24,
    ("sm100", "backward", "half", 32): 24,
}


def most_spilled(family: str, rule: Setting, version: str = triton.__version__) -> int:
    """What ``rule`` may spill by a version of Triton."""
    seen = SPILLED.get(".".join(version.split(".")[:2]), SPILLED_BY_OTHERS)
    return seen.get((family, rule.kernel, rule.precision, rule.rows), 0)


def shared_limit(family: str, rule: Setting) -> int:
    """Bytes of shared memory that a program launched by ``rule`` can have."""
    return (_MOST_SHARED if rule.resident else SHARED_LIMIT)[family]
