"""The fused Triton kernels compiled for GPUs that are not here: what they take must fit.

Those of short sequences in half precision; ``python -m benchmarks.gpu.triton_aot --check`` holds every
shipped setting to its bound (``benchmarks/gpu/triton_bounds.py``) and prints the table of
docs/results/performance.md.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets kernels here", allow_module_level=True)

from benchmarks.gpu import triton_aot, triton_bounds
from benchmarks.gpu.triton_aot import TARGETS, Compiled, Resources, compiled_rule, matrix_bytes
from lares_kernels import CoreConfig
from lares_kernels.spec.config import MIXERS
from lares_kernels.triton.launch.rules import Setting
from lares_kernels.triton.launch.settings import BESIDES, families, longest_sequence, settings
from tests.kernels import compiled

SHORT = [
    (family, rule)
    for family in TARGETS
    for rule in settings(family)
    if rule.precision == "half" and (rule.rows == 32 or rule.kernel == "weights")
]
OF_ATTENTION = [(family, rule) for family, rule in SHORT if "attention" in rule.mixers]
# sm_100 has sm_90's kernels but for the products' instructions: enough in `--check`.
OF_WINDOWS = [
    (family, rule, mixer)
    for family, rule in SHORT
    if family != "sm100" and rule.kernel != "weights"
    for mixer in rule.mixers
    if mixer != "attention"
]


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that was compiled before is not compiled again."""
    monkeypatch.setattr(triton_aot, "resources_of", compiled.resources_of)


def place(value: object) -> str:
    if isinstance(value, Setting):
        return f"{value.kernel}-{value.weights}" if value.kernel == "forward" else value.kernel
    return str(value)


@pytest.mark.parametrize(("family", "rule"), OF_ATTENTION, ids=place)
def test_kernels_of_short_sequences_fit(family: str, rule: Setting) -> None:
    """With dropout, which takes the most registers."""
    assert compiled_rule(family, rule, dropout=True).faults() == []


@pytest.mark.parametrize(("family", "rule", "mixer"), OF_WINDOWS, ids=place)
def test_kernels_that_mix_whole_windows_fit(family: str, rule: Setting, mixer: str) -> None:
    assert compiled_rule(family, rule, dropout=True, mixer=mixer).faults() == []


@pytest.mark.parametrize(
    "config",
    [
        CoreConfig(n_heads=4, d_ff=130, n_layers=1, adapter="concat", norm="pre", dropout=0.25),
        CoreConfig(d_model=32, n_heads=1, d_ff=64, n_layers=3, adapter="gate", attn_dropout=0.25),
    ],
    ids=["concat", "small"],
)
def test_other_cores_with_resident_weights_take_little_besides(config: CoreConfig) -> None:
    """What ``settings`` counts on when it looks whether a core fits."""
    rule = next(rule for rule in settings("sm90") if rule.resident)
    shared = triton_aot.resources_of_rule(rule, TARGETS["sm90"], config, dropout=True).shared
    assert matrix_bytes(config) <= shared <= matrix_bytes(config) + BESIDES


@pytest.mark.long
def test_a_rule_may_limit_registers() -> None:
    """At 168 three programs of four warps fit a multiprocessor, by the compiler's own count two."""
    rule = next(
        r for r in settings("sm90") if r.kernel == "forward" and r.rows == 32 and not r.resident
    )
    found = compiled_rule("sm90", replace(rule, registers=168), dropout=True).found
    assert 128 < found.registers <= 168


def test_what_is_past_its_bound_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = next(rule for rule in settings("sm90") if rule.resident)
    config = triton_aot.config_for("sm90", rule)
    assert config.n_layers == 1
    held = matrix_bytes(config)

    def found(spilled: int, shared: int) -> list[str]:
        return Compiled("sm90", rule, config, True, Resources(255, spilled, shared)).faults()

    assert found(0, held) == []
    assert "999 spilled" in found(999, held)[0]
    assert "read again and again" in found(0, held - 1)[0]
    assert "bytes of shared memory of" in found(0, 1 << 20)[0]
    two = replace(rule, most_layers=256, programs=1)
    assert triton_aot.config_for("sm90", two).n_layers == 2

    row = Compiled("sm90", rule, config, True, Resources(255, 999, held))
    monkeypatch.setattr(triton_aot, "table", lambda *asked: iter([row]))
    assert triton_aot.main([]) == 0
    assert triton_aot.main(["--check"]) == 1
    assert "past its bound: sm90, forward, half, 32 rows: 999 spilled" in capsys.readouterr().out


def test_bounds_are_of_shipped_settings() -> None:
    shipped = {(f, r.kernel, r.precision, r.rows) for f in TARGETS for r in settings(f)}
    for seen in (triton_bounds.SPILLED_BY_OTHERS, *triton_bounds.SPILLED.values()):
        assert {*seen} <= shipped


@pytest.mark.parametrize(
    ("version", "bound"), [("3.6.0", 64), ("3.7.1", 0), ("3.9.0", 0), ("3.4.0", 0), ("3.60.0", 0)]
)
def test_bounds_are_those_of_a_version(version: str, bound: int) -> None:
    """3.6, which PyTorch 2.11 brings, spills where others do not."""
    rule = next(r for r in settings("sm80") if (r.kernel, r.precision) == ("forward", "half"))
    assert triton_bounds.most_spilled("sm80", rule, version) == bound
    others = next(r for r in settings("sm100") if (r.kernel, r.precision) == ("backward", "half"))
    assert triton_bounds.most_spilled("sm100", others, version) == (
        24 if version in ("3.4.0", "3.60.0") else 0
    )


NVIDIA = ["sm80", "sm90", "sm100"]


@pytest.mark.parametrize("family", NVIDIA)
def test_backward_of_longer_sequences_is_left_to_the_layered_plan(family: str) -> None:
    """Tiles of 64 rows spill in backward on NVIDIA's cards."""
    for precision in ("half", "tf32"):
        # By Triton 3.9 even 32 rows spill in tf32 on sm_90.
        rows = 0 if (family, precision) == ("sm90", "tf32") else 32
        assert longest_sequence(family, "backward", precision, 64, 2, "attention") == rows
    assert longest_sequence(family, "forward", "half", 64, 2, "attention") == 64


@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_windows_that_tiles_mix(mixer: str) -> None:
    """Larger ones spill on NVIDIA's cards."""
    for family in NVIDIA:
        for kernel in ("forward", "backward"):
            assert longest_sequence(family, kernel, "half", 64, 2, mixer) == 32
    assert longest_sequence("gfx942", "backward", "half", 64, 2, mixer) == 64


@pytest.mark.parametrize("family", [*NVIDIA, "gfx942"])
def test_backward_without_tensor_cores_is_left_to_the_layered_plan(family: str) -> None:
    for mixer in MIXERS:
        assert longest_sequence(family, "backward", "ieee", 64, 2, mixer) == 0
    assert longest_sequence(family, "forward", "ieee", 64, 2, "attention") >= 32


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("family", families())
def test_settings_are_whole(family: str, mixer: str) -> None:
    rules = [rule for rule in settings(family) if mixer in rule.mixers]
    for precision in {rule.precision for rule in rules}:
        streamed = [r for r in rules if r.precision == precision and not r.resident]
        kernels = {rule.kernel for rule in streamed}
        # Forward alone may be fused; backward leaves what its weights' gradients are products of.
        assert kernels in ({"forward"}, {"forward", "backward", "weights"}), precision
        for kernel in kernels:
            rows = [rule.rows for rule in streamed if rule.kernel == kernel]
            # The first rule with room is taken, so shorter tiles come first.
            assert rows == sorted(set(rows))
    assert "half" in {rule.precision for rule in rules}
    assert all(rule.kernel == "forward" for rule in rules if rule.resident)
