"""Launches of the fused Triton kernels on a card that is not there: they compile, and compile once.

Everything happens as on a GPU up to the launch itself, which only compiles.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets kernels here", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from lares_kernels import CoreConfig, RecurrentCore
from lares_kernels.operators.refine import make_call
from lares_kernels.spec.call import Given, GivenBackward, RefineCall
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.triton.fused import launch as fused
from lares_kernels.triton.fused.kernels.backward import backward_kernel
from lares_kernels.triton.fused.kernels.forward import forward_kernel
from lares_kernels.triton.fused.kernels.packing import unpack_kernel
from lares_kernels.triton.fused.kernels.prepare import prepare_kernel
from lares_kernels.triton.fused.kernels.weight_gradients import weights_kernel
from lares_kernels.triton.kernels.tiles import rows_kernel

OF_FORWARD = (prepare_kernel, rows_kernel, forward_kernel)
KERNELS = (*OF_FORWARD, backward_kernel, weights_kernel, unpack_kernel)
CONFIG = CoreConfig(16, 1, 16, 1, dropout=0.5, attn_dropout=0.5)


class AbsentCard:
    """As much of a Triton driver as compiling needs."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Counts the kernels compiled so far."""
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return run(self, *args, grid=grid, warmup=True, **options)

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(fused, "family_of", lambda device: "sm90")
    before = dict(vars(driver))
    driver.set_active(AbsentCard())
    for kernel in KERNELS:
        kernel.device_caches.clear()

    def count() -> int:
        return sum(len(kernel.device_caches[0][0]) for kernel in KERNELS)

    yield count
    for kernel in KERNELS:
        kernel.device_caches.clear()
    vars(driver).update(before)


def call_of(hidden: torch.Tensor, steps: int, seed: int, depths: torch.Tensor | None) -> RefineCall:
    lengths = torch.full(hidden.shape[:1], hidden.shape[1])
    options = CallOptions(
        CONFIG.key, "triton", "bf16", max_steps=steps, dropout=True, wants_state=True,
        differentiates=True, keeps_padding=True,
    )  # fmt: skip
    return make_call(hidden, CallTensors(lengths, depths, None, seed), options)


def launch(
    batch: int, steps: int, seed: int | torch.Tensor, depths: bool = False, backward: bool = True
) -> None:
    """Forward, and backward, of ``batch`` sequences of 20 tokens."""
    hidden = torch.zeros(batch, 20, CONFIG.d_model)
    parameters = [p.detach() for p in RecurrentCore(CONFIG).parameters()]
    numbers = torch.arange(batch) % steps + 1 if depths else None
    call = call_of(hidden, steps, 0, numbers)
    call.seed = seed
    out = fused.fused_forward(call, Given(hidden, None, parameters), "half", 20)
    trajectory, final, kept = out
    if backward:
        given = GivenBackward(hidden, None, parameters, kept, trajectory, final)
        fused.fused_backward(call, given, "half", 20)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_depth_batch_and_seed_compile_nothing_new(
    backward: bool, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And products are added in one instruction, where that is not Triton's default, too."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "0")  # the default from 3.10 on
    launch(batch=2, steps=2, seed=3, backward=backward)
    first = compiled()
    assert first >= (len(KERNELS) if backward else len(OF_FORWARD))
    for kernel in (forward_kernel, backward_kernel, weights_kernel):
        for found in kernel.device_caches[0][0].values():
            assert found.metadata.enable_fp_fusion
    for batch, steps, seed in ((1, 1, 0), (16, 16, 1), (17, 12, 2**32), (640, 5, 2**64 - 1)):
        launch(batch, steps, seed, backward=backward)
    # Somewhere in memory, as a caller may have it.
    launch(2, 2, torch.arange(3)[1], backward=backward)
    assert compiled() == first
    # A depth for each sequence is read by the plan's two kernels alone.
    for batch, steps in ((2, 2), (1, 1), (16, 16), (33, 12)):
        launch(batch, steps, 7, depths=True, backward=backward)
        assert compiled() == first + 2


@pytest.mark.parametrize("adapter", ["gate", "concat", "none"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_every_adapter_compiles(
    adapter: str, norm: str, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only some cores use has no other test that compiles it; dropout, which all use, has."""
    config = replace(
        CONFIG, adapter=adapter, norm=norm, activation="silu", dropout=0.0, attn_dropout=0.0
    )
    monkeypatch.setitem(globals(), "CONFIG", config)
    launch(batch=2, steps=1, seed=0)
    assert compiled() >= len(KERNELS)
