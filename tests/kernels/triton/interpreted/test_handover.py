"""What forward leaves for backward: the tile plan and packed parameters, through autograd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.triton.fused import launch as fused
from lares_kernels.triton.launch.settings import use_rules
from lares_kernels.triton.layered import packed_rows as layered_rows
from tests.kernels.last_states import check_last_states
from tests.kernels.problems import make_core

CONFIG = CoreConfig(16, 2, 24, 1, dropout=0.25, attn_dropout=0.25)


def run(core: RecurrentCore) -> tuple[Tensor, Tensor]:
    """A loss, and the hidden that it came from; depths differ."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 9, 16, generator=generator).requires_grad_()
    with use_backend("triton"):
        out = core(hidden, torch.tensor([9, 2, 5]), num_steps=torch.tensor([1, 2, 2]))
    return (out.last * torch.arange(16.0)).sum(), hidden


@pytest.fixture(params=["fused", "layered"])
def plan(request: pytest.FixtureRequest) -> Iterator[tuple[ModuleType, str]]:
    """Which plan runs, and where it finds rows their places."""
    if request.param == "fused":
        yield fused, "make_plan"
        return
    with use_rules("interpreter", ()):
        yield layered_rows, "pack_rows"


@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, mixer="bsarec", window=9), replace(CONFIG, padding="left-zeros")],
    ids=["attention", "window", "padding"],
)
def test_nothing_is_planned_or_packed_twice(
    config: CoreConfig, plan: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the graph is kept, and where hooks move what is saved."""
    core = make_core(config).float()
    loss, hidden = run(core)
    wanted = torch.autograd.grad(loss, [hidden, *core.parameters()])

    plans = []
    make_plan = getattr(*plan)

    def counted(*arguments: object) -> object:
        plans.append(1)
        return make_plan(*arguments)

    monkeypatch.setattr(*plan, counted)
    with torch.autograd.graph.saved_tensors_hooks(Tensor.clone, lambda tensor: tensor):
        loss, hidden = run(core)
    for retain in (True, False):
        found = torch.autograd.grad(loss, [hidden, *core.parameters()], retain_graph=retain)
        assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))
    assert len(plans) == 1


def test_gradients_do_not_share_numbers() -> None:
    """They lie in one array, but not over each other: writing to one leaves the others."""
    core = make_core(CONFIG).float()
    loss, hidden = run(core)
    loss.backward()
    gradients = [tensor.grad for tensor in (hidden, *core.parameters())]
    before = [gradient.clone() for gradient in gradients if gradient is not None]
    assert len(before) == len(gradients)
    for i, gradient in enumerate(gradients):
        assert gradient is not None
        gradient.fill_(i)
    for i, (gradient, old) in enumerate(zip(gradients, before, strict=True)):
        assert gradient is not None
        assert gradient.shape == old.shape
        assert bool((gradient == i).all())


def test_parameters_that_changed_are_refused() -> None:
    core = make_core(CONFIG).float()
    loss, _ = run(core)
    with torch.no_grad():
        core.up_bias.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(("adapter", "rollouts"), [("add", 1), ("add", 2), ("none", 1)])
def test_last_states(adapter: str, rollouts: int) -> None:
    check_last_states("triton", replace(CONFIG, adapter=adapter), rollouts)
