"""The fused Triton kernels compiled for GPUs that are not here: what they take must fit.

``python -m benchmarks.triton_aot`` prints the whole table, which docs/performance.md holds.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets kernels here", allow_module_level=True)

from benchmarks.triton_aot import PUBLISHED, SHARED_LIMIT, TARGETS, compile_rule, resources
from lares_kernels.triton.settings import families, setting, settings

# Bytes of stack a thread (NVIDIA), vector registers (AMD): the most that Triton 3.4, 3.6, 3.7 showed,
# so that more of it is seen.
SPILLED = {"sm80": 136, "sm90": 0, "sm100": 8, "gfx942": 0}


@pytest.mark.parametrize("family", [*TARGETS])
@pytest.mark.parametrize("kernel", ["forward", "backward", "weights"])
def test_kernels_of_short_sequences_fit(family: str, kernel: str) -> None:
    """With dropout, which takes the most registers, in half precision, in tiles of 32 rows."""
    rule = setting(family, kernel, "half", 64, PUBLISHED.n_layers, 20)
    found = resources(compile_rule(rule, TARGETS[family], PUBLISHED, dropout=True))
    assert found.spilled <= SPILLED[family]
    assert found.shared <= SHARED_LIMIT[family]


@pytest.mark.parametrize("family", families())
def test_settings_are_whole(family: str) -> None:
    rules = settings(family)
    for precision in {rule.precision for rule in rules}:
        for kernel in ("forward", "backward", "weights"):
            mine = [r for r in rules if (r.kernel, r.precision) == (kernel, precision)]
            # The first rule with room is taken, so shorter tiles come first.
            assert [r.rows for r in mine] == sorted({r.rows for r in mine})
    assert {rule.precision for rule in rules} >= {"half", "ieee"}
