"""The catalogue's Triton kernels compiled for GPUs that are not here: spills, shared memory."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from benchmarks.gpu.triton_aot import TARGETS, source_of
from benchmarks.gpu.triton_bounds import SHARED_LIMIT
from lares_kernels.triton.catalogue import (
    MAX_K,
    MAX_WIDTH,
    MIN_K,
    options_of,
    tile_of,
    top_k_tile,
)
from lares_kernels.triton.kernels import catalogue, catalogue_apart
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, compile_time
from tests.kernels import compiled
from tests.kernels.test_layered_compiled import skip_without_linker

NUMBERS = ("n_queries", "each", "n_items", "n_excluded", "splits")
PRODUCT_TYPE = {"half": "*bf16", "tf32": "*fp32", "ieee": "*fp32"}
KERNELS = (
    "log_probability_kernel",
    "query_gradients_kernel",
    "query_gradients_apart_kernel",
    "item_gradients_kernel",
    "ranks_kernel",
    "top_k_kernel",
)
# Bytes of a thread's stack (NVIDIA), vector registers (AMD): a little of the widest.
MOST_SPILLED = 24


def type_of(name: str, precision: str) -> str:
    if name in NUMBERS:
        return "i32"
    if name in ("queries", "items"):
        return PRODUCT_TYPE[precision]
    others = {"longest": "fp32", "chosen": "*i64", "targets": "*i64", "best": "*i64"}
    return others.get(name, "*i32" if name in ("excluded", "counts") else "*fp32")


def check(name: str, target: str, precision: str, width: int, k: int = MIN_K) -> None:
    kernel = getattr(catalogue_apart if "apart" in name else catalogue, name)
    c, options = tile_of(width, precision, True, True), options_of(width, precision)
    if name == "top_k_kernel":
        c, options = top_k_tile(c, k), {"num_warps": 8, "num_stages": 1}
    values: dict[str, Any] = {"ENTROPY": True, "C": compile_time(c)}
    types = {argument: type_of(argument, precision) for argument in kernel.arg_names}
    source = source_of(kernel, types, values)
    found = compiled.resources_of(source, TARGETS[target], {**options, **LAUNCH_OPTIONS})
    print(name, precision, target, f"d={width} k={k}", found)
    assert found.spilled <= MOST_SPILLED, found
    assert found.shared <= SHARED_LIMIT[target], found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["half", "tf32", "ieee"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_fit(name: str, precision: str, target: str) -> None:
    if precision == "tf32" and target == "gfx942":
        pytest.skip("tf32 is NVIDIA's")
    skip_without_linker(target)
    for width in (64, MAX_WIDTH[precision]):
        check(name, target, precision, width)


@pytest.mark.parametrize("target", TARGETS)
def test_the_longest_list_fits(target: str) -> None:
    skip_without_linker(target)
    check("top_k_kernel", target, "half", 64, MAX_K)
