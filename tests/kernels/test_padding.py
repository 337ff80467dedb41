"""Padding on the left: the same tokens elsewhere, and, held at zero, tokens of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.binding import cpu_library
from tests.kernels.problems import SMALL, make_core

RATES = {"dropout": 0.5, "attn_dropout": 0.25, "inner_dropout": 0.25}
LENGTHS = torch.tensor([1, 5, 3, 9])
BACKENDS = [
    "equations",
    "reference",
    pytest.param(
        "cpu", marks=pytest.mark.skipif(isinstance(cpu_library.load(), str), reason="no CPU kernel")
    ),
]


def moved_left(padded: Tensor) -> Tensor:
    """(4, .., 9, d) with the tokens of each sequence at its end."""
    parts = [row.roll(9 - int(n), -2) for row, n in zip(padded, LENGTHS, strict=True)]
    return torch.stack(parts)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rollouts", [1, 3])
@pytest.mark.usefixtures("poisoned_memory")
def test_left_is_right_moved(backend: str, rollouts: int) -> None:
    """Bit for bit, draws included, and so do gradients."""
    core = make_core(replace(SMALL, **RATES), scale=0.1).float()
    other = make_core(replace(core.config, padding="left")).float()
    other.load_state_dict(core.state_dict())
    hidden = torch.randn(4, 9, 16)
    depths = torch.tensor([[2, 1, 3], [1, 1, 4], [4, 4, 4], [3, 2, 1]])[:, :rollouts]
    found = []
    for run, given in ((core, hidden), (other, moved_left(hidden))):
        given = given.requires_grad_()
        with use_backend(backend):
            out = run(
                given,
                LENGTHS,
                num_steps=depths,
                rollouts=rollouts,
                return_trajectory=True,
                return_state=True,
            )
        (out.trajectory.sum() + out.state.square().sum()).backward()
        found.append((out.trajectory, out.state, given.grad, core.qkv_weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(moved_left(found[0][1]), found[1][1])
    assert torch.equal(moved_left(found[0][2]), found[1][2])
    assert torch.equal(core.qkv_weight.grad, other.qkv_weight.grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_are_tokens_that_stay_zero(backend: str) -> None:
    """One layer on real tokens behind rows of zeros, whose output is zero whatever they held."""
    config = replace(SMALL, adapter="none", norm="query", n_layers=1)
    core = make_core(config, scale=0.1).float().eval()
    held = RecurrentCore(replace(config, padding="left-zeros")).eval()
    held.load_state_dict(core.state_dict())
    hidden = torch.randn(4, 9, 16)
    real = torch.arange(9) >= 9 - LENGTHS[:, None]
    with use_backend(backend):
        expected = core(hidden * real[..., None], return_state=True).state
        found = held(hidden.masked_fill(~real[..., None], float("nan")), LENGTHS, return_state=True)
    assert torch.equal(found.state[real], expected[real])
    assert bool((found.state[~real] == 0).all())


def test_what_zeros_cannot_be() -> None:
    core = RecurrentCore(CoreConfig(8, 2, 8, 1, padding="left-zeros"))
    with pytest.raises(ValueError, match=r"hidden is packed"):
        core(torch.zeros(3, 8), cu_seqlens=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"CoreConfig.padding is 'up'"):
        CoreConfig(padding="up")
    with pytest.raises(ValueError, match=r"CoreConfig.dropout_of is 'none'"):
        CoreConfig(dropout_of="none")
