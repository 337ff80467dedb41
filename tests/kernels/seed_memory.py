"""Kernels read the seed from memory when they run: one call, with another seed in it each time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore
from lares_kernels.operators.refine import make_call
from lares_kernels.spec.call import PRECISIONS, Given, GivenBackward, RefineCall
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.spec.seeds import signed

SEEDS = (7, 2**63 + 5, 2**40 + 1)


def call_of(
    config: CoreConfig, hidden: Tensor, lengths: Tensor, seed: Any, precision: str, trains: bool
) -> RefineCall:
    """A call of two steps, on a drawn state, with dropout if it ``trains``."""
    options = CallOptions(
        config.key,
        backend="",
        precision=precision,
        max_steps=2,
        dropout=trains,
        wants_state=True,
        differentiates=trains,
        keeps_padding=True,
    )
    call = make_call(hidden, CallTensors(lengths, None, None, 0), options)
    call.seed = seed
    return call


def results(
    backend: Any, call: RefineCall, hidden: Tensor, parameters: list[Tensor]
) -> list[Tensor]:
    """Trajectory, final state, and gradients if the call trains."""
    given = Given(hidden, None, parameters)
    trajectory, final, kept = backend.forward(call, given)
    if not call.options.differentiates:
        return [trajectory, final]
    gradients = (torch.ones_like(trajectory), torch.ones_like(final))
    return [trajectory, final, *backend.backward(call, GivenBackward(*given, kept, *gradients))]


def assert_draws_follow_memory(
    backend: Any, config: CoreConfig, lengths: list[int], precision: str, trains: bool = True
) -> None:
    """Whatever number stands in the seed's memory, the draws are those of the number, bit by bit."""
    torch.manual_seed(1)
    parameters = [p.detach() for p in RecurrentCore(config).parameters()]
    hidden, sizes = torch.randn(len(lengths), max(lengths), config.d_model), torch.tensor(lengths)
    memory = torch.zeros((), dtype=torch.int64)
    call = call_of(config, hidden, sizes, memory, precision, trains)
    assert call.product_dtype == PRECISIONS[precision]
    found = []
    for seed in SEEDS:
        memory.fill_(signed(seed))
        found.append(results(backend, call, hidden, parameters))
        number = call_of(config, hidden, sizes, seed, precision, trains)
        for mine, right in zip(
            found[-1], results(backend, number, hidden, parameters), strict=True
        ):
            assert torch.equal(mine, right)
    assert not torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[1][0], found[2][0])
