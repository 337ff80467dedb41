"""Forwards of whole models that run again, or go on from what was saved, draw the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lares import LaresConfig, LaresEncoder
from lares.integrations import sasrec
from tests.integrations.sasrec_pytorch import SequenceModel

IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [9, 9, 30, 0, 0]])
LENGTHS = torch.tensor([5, 2, 3])
SEQS = np.array([[0, 0, 0, 0, 7], [1, 2, 3, 4, 5], [0, 0, 9, 9, 30]])
CORES = ("attention", "filter", "bsarec")


def encoder(**options: Any) -> LaresEncoder:
    torch.manual_seed(1)
    small = {"n_items": 31, "max_length": 5, "d_model": 16, "d_ff": 24, "dropout": 0.5}
    return LaresEncoder(LaresConfig(**{**small, "attn_dropout": 0.25, **options}))


def swapped(recurrent: bool) -> nn.Module:
    torch.manual_seed(1)
    model = SequenceModel("query", rate=0.2)
    return (sasrec.make_recurrent if recurrent else sasrec.accelerate)(model).train()


def run_of(kind: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A module in training mode, and a run of it that depends on a number."""
    if kind in ("accelerate", "make_recurrent"):
        model = swapped(kind == "make_recurrent")
        return model, lambda x: model.log2feats(SEQS) * x
    module = encoder(
        core=kind.partition(" ")[0], **({"state_mode": "zero"} if "zero" in kind else {})
    )
    return module, lambda x: module(IDS, LENGTHS, 3, return_state=True).state * x


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", [*CORES, "attention zero", "accelerate", "make_recurrent"])
def test_activation_checkpointing(kind: str, reentrant: bool) -> None:
    module, run = run_of(kind)
    found = []
    for recomputes in (False, True):
        module.zero_grad()
        torch.manual_seed(8)
        x = torch.ones((), requires_grad=True)
        out = checkpoint(run, x, use_reentrant=reentrant) if recomputes else run(x)
        (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        found.append([out.detach(), x.grad, *grads])
    assert len(found[0]) == len(found[1])
    for mine, wanted in zip(*found, strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("kind", ["attention", "accelerate", "make_recurrent"])
def test_every_step_draws_anew_and_a_seed_of_torchs_repeats_it(kind: str) -> None:
    _, run = run_of(kind)
    one = torch.ones(())
    torch.manual_seed(4)
    steps = [run(one) for _ in range(3)]
    torch.manual_seed(4)
    again = [run(one) for _ in range(3)]
    for number, step in enumerate(steps):
        assert torch.equal(step, again[number])
        assert all(not torch.equal(step, other) for other in steps[:number])


def test_an_encoder_in_evaluation_takes_seed_0() -> None:
    module = encoder().eval()
    state = torch.get_rng_state()
    found = [module(IDS, LENGTHS, 3, seed=seed).last for seed in (None, 0, torch.tensor(0), 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(found[0], other) for other in found[1:3])
    assert not torch.equal(found[0], found[3])


def test_nothing_is_drawn_where_nothing_drops() -> None:
    module = encoder(dropout=0.0, attn_dropout=0.0, state_mode="zero")
    model = sasrec.accelerate(SequenceModel("query")).train()
    state = torch.get_rng_state()
    module(IDS, LENGTHS, 3)
    model.log2feats(SEQS)
    assert torch.equal(state, torch.get_rng_state())


def test_prefixes_draw_as_their_history() -> None:
    module = encoder()
    torch.manual_seed(3)
    states = module.token_states(IDS, LENGTHS, [1, 3])
    torch.manual_seed(3)
    last = module(IDS, LENGTHS, 3).last
    torch.testing.assert_close(states[-1][LENGTHS.cumsum(0) - 1], last)


@pytest.mark.parametrize("kind", ["attention", "accelerate", "make_recurrent"])
def test_training_goes_on_from_weights_optimiser_and_generator(kind: str) -> None:
    def steps(module: nn.Module, run: Any, optimizer: Any, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            loss = run(torch.ones(())).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def made() -> tuple[nn.Module, Any, Any]:
        module, run = run_of(kind)
        torch.manual_seed(6)
        return module, run, torch.optim.Adam(module.parameters(), 1e-2)

    whole = steps(*made(), 6)[3:]
    module, run, optimizer = made()
    steps(module, run, optimizer, 3)
    saved = copy.deepcopy((module.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    module, run, optimizer = made()
    module.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    assert steps(module, run, optimizer, 3) == whole
