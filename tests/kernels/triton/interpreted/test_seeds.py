"""Triton's kernels draw by the seed that stands in memory when they run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lares_kernels import CoreConfig, RecurrentCore
from lares_kernels.spec.call import Given, GivenBackward
from lares_kernels.triton.backend import TritonBackend
from lares_kernels.triton.fused import launch as fused
from tests.kernels.seed_memory import assert_draws_follow_memory, call_of

DROPPING = CoreConfig(16, 2, 24, 1, dropout=0.5, attn_dropout=0.25, inner_dropout=0.25)
WINDOWS = CoreConfig(16, 2, 24, 1, mixer="bsarec", window=5, dropout=0.5, attn_dropout=0.5)


@pytest.mark.parametrize("config", [DROPPING, WINDOWS], ids=["attention", "bsarec"])
@pytest.mark.parametrize("plan", ["fused", "layered"])
def test_draws_follow_memory(
    plan: str, config: CoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plan == "layered":
        monkeypatch.setattr(TritonBackend, "_is_fused", lambda *_: False)
    assert_draws_follow_memory(TritonBackend(), config, [2, 5], "fp32")


def test_nobody_reads_the_seed_on_the_host() -> None:
    read = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "_local_scalar_dense" in str(function):
                read.append(args[0])
            return function(*args, **(kwargs or {}))

    hidden = torch.randn(2, 5, 16)
    parameters = [p.detach() for p in RecurrentCore(DROPPING).parameters()]
    seed = torch.tensor(3)
    call = call_of(DROPPING, hidden, torch.tensor([2, 5]), seed, "fp32", True)
    with Watch():
        out = fused.fused_forward(call, Given(hidden, None, parameters), "ieee", 5)
        given = GivenBackward(hidden, None, parameters, out[2], out[0], out[1])
        fused.fused_backward(call, given, "ieee", 5)
    assert read == []
    assert call.seed_memory.data_ptr() == seed.data_ptr()
