"""The layered plan's kernels compiled for GPUs that are not here: registers, spills, shared memory."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs Triton's compiler", allow_module_level=True)

import triton

from benchmarks.gpu.triton_aot import TARGETS, source_of
from benchmarks.gpu.triton_bounds import SHARED_LIMIT
from lares_kernels import CoreConfig
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, Constants, compile_time, constants
from lares_kernels.triton.layered.attention_blocks import attention_blocks
from lares_kernels.triton.layered.call import FLAT_BLOCK, rows_per_program
from lares_kernels.triton.layered.gradients import KEY_STAGES
from lares_kernels.triton.layered.kernels import (
    attention as layered_attention,
)
from lares_kernels.triton.layered.kernels import (
    mixing as layered_mixing,
)
from lares_kernels.triton.layered.kernels import (
    rows as layered_rows,
)
from lares_kernels.triton.layered.mixing import SUM_BLOCK, mixing_blocks
from tests.kernels import compiled

FORWARD = (layered_attention.attention_kernel,)
BACKWARD = (layered_attention.query_gradient_kernel, layered_attention.key_gradient_kernel)
HEADS, LONGEST = (32, 64, 128, 256), (32, 1024)
WIDTHS = (64, 192, 1024)
RATE = 0.5
# Bytes of a thread's stack (NVIDIA), vector registers (AMD). Triton 3.9 spills nothing, 3.7 some of
# the ieee products, which run without tensor cores; what 3.4 and 3.6 showed is let through.
VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
if VERSION >= (3, 9):
    MOST_SPILLED = {"half": 0, "tf32": 0, "ieee": 0}
elif VERSION >= (3, 7):
    MOST_SPILLED = {"half": 0, "tf32": 0, "ieee": 16}
else:
    MOST_SPILLED = {"half": 8, "tf32": 16, "ieee": 352}
PRODUCT_TYPE = {"half": "*bf16", "tf32": "*fp32", "ieee": "*fp32"}
OF_PRODUCTS = (
    *("qkv", "context", "g_context", "g_qkv", "branch", "g_branch", "g_branch_input"),
    *("out_product", "both", "g_both", "inner", "g_out", "result"),
)
INTEGERS = ("starts", "keys", "streams", "stream", "position", "hidden_row")
SCALARS = (
    *("n_rows", "layer", "step", "size", "width"),
    *("length", "n_frequencies", "n_windows"),
)


def type_of(name: str, precision: str) -> str:
    if name in OF_PRODUCTS:
        return PRODUCT_TYPE[precision]
    if name in SCALARS:
        return "i32"
    others = {"scale": "fp32", "state_row": "*i64", "seed": "*i64"}
    return others.get(name, "*i32" if name in INTEGERS else "*fp32")


def check(
    kernel: Any, c: Constants, precision: str, target: str, warps: int, **values: Any
) -> None:
    types = {name: type_of(name, precision) for name in kernel.arg_names}
    values["C"] = compile_time(c)
    if "gate" in types and not c.gated:
        values["gate"] = None
    source = source_of(kernel, types, values)
    options = {"num_warps": warps, **LAUNCH_OPTIONS}
    if kernel is layered_attention.key_gradient_kernel:
        options |= KEY_STAGES.get(precision, {})
    found = compiled.resources_of(source, TARGETS[target], options)
    print(kernel.__name__, precision, target, f"d={c.d} head={c.head}", found)
    assert found.spilled <= MOST_SPILLED[precision], (kernel.__name__, found)
    assert found.shared <= SHARED_LIMIT[target], (kernel.__name__, found)


def skip_without_linker(target: str) -> None:
    """Triton 3.4 leaves AMD's linker to ROCm; later ones bring their own."""
    if target == "gfx942" and VERSION < (3, 6) and shutil.which("ld.lld") is None:
        pytest.skip("this Triton needs ROCm's linker")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["half", "tf32", "ieee"])
def test_attention(target: str, precision: str) -> None:
    if precision == "tf32" and target == "gfx942":
        pytest.skip("tf32 is NVIDIA's")
    skip_without_linker(target)
    cases = {
        (kernel, head, blocks)
        for head in HEADS
        for longest in LONGEST
        for kernels, blocks in zip(
            (FORWARD, BACKWARD), attention_blocks(precision, head, longest), strict=True
        )
        for kernel in kernels
    }
    for kernel, head, blocks in sorted(cases, key=str):
        config = CoreConfig(d_model=2 * head, dropout=RATE, attn_dropout=RATE)
        c = constants(config, 16, True, precision)
        sides = {"QUERIES": blocks.side, "KEYS": blocks.side}
        check(kernel, c, precision, target, blocks.warps, **sides)


@pytest.mark.parametrize("target", TARGETS)
def test_rows(target: str) -> None:
    skip_without_linker(target)
    for width in WIDTHS:
        for adapter in ("add", "gate"):
            config = CoreConfig(
                d_model=width, n_heads=width // 32, dropout=RATE, attn_dropout=RATE, adapter=adapter
            )
            c = constants(config, rows_per_program(width), True, "half")
            check(layered_rows.adapt_kernel, c, "half", target, 4)
            check(layered_rows.adapt_backward_kernel, c, "half", target, 4)
        check(layered_rows.first_state_kernel, c, "half", target, 4, DRAWN=True, state=None)
        check(layered_rows.join_kernel, c, "half", target, 4)
        check(layered_rows.split_kernel, c, "half", target, 4)
        # Branches differ by a number in the address of their draws: all of them once is enough.
        for branch in (0, 1, 2) if (width, target) == (WIDTHS[0], "sm90") else (0,):
            share = {"SHARE": 0.7}
            check(layered_rows.residual_kernel, c, "half", target, 4, BRANCH=branch, **share)
            for norm in (0, 1, 2):
                place = {"BRANCH": branch, "NORM": norm, **share}
                check(layered_rows.residual_backward_kernel, c, "half", target, 4, **place)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_activations(target: str, activation: str) -> None:
    skip_without_linker(target)
    for precision in ("half", "ieee"):
        config = CoreConfig(activation=activation, inner_dropout=RATE)
        c = constants(config, 16, activation == "relu", precision)
        for forward in ({"g_out": None}, {}):
            kernel = layered_rows.activate_kernel
            check(kernel, c, precision, target, 4, BLOCK=FLAT_BLOCK, **forward)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_mixing(target: str, mixer: str) -> None:
    skip_without_linker(target)
    for precision in ("ieee",) if target == "gfx942" else ("ieee", "tf32"):
        for width, window in ((64, 50), (1024, 200)):
            config = CoreConfig(d_model=width, mixer=mixer, window=window)
            c = constants(config, rows_per_program(width), True, precision)
            blocks = mixing_blocks(config)
            check(layered_mixing.spectrum_kernel, c, precision, target, 4, **blocks)
            absent = ("x", "band_scale", "high") if mixer == "filter" else ("weight",)
            # Signs differ by a number: one width for both is enough.
            for sign in (1.0, -1.0) if width == 64 else (1.0,):
                values = {"SIGN": sign, **blocks, **dict.fromkeys(absent)}
                check(layered_mixing.window_kernel, c, precision, target, 4, **values)
        check(layered_mixing.filter_gradient_kernel, c, precision, target, 4, BLOCK=SUM_BLOCK)
