"""The hand-written backward against autograd of the equations, and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lares_kernels import CoreConfig, use_backend
from tests.kernels.problems import SMALL, VARIANTS, make_core, make_problem, name, relative


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("config", VARIANTS, ids=name)
@pytest.mark.usefixtures("poisoned_memory")
def test_handwritten_backward_equals_autograd(config: CoreConfig, dropout: float) -> None:
    rates = {"dropout": dropout, "attn_dropout": dropout / 2, "inner_dropout": dropout / 4}
    problem = make_problem(replace(config, **rates))
    with use_backend("equations"):
        expected_out, expected = problem.run(), problem.gradients()
    with use_backend("reference"):
        out, found = problem.run(), problem.gradients()
    assert torch.equal(out.trajectory, expected_out.trajectory)
    assert torch.equal(out.state, expected_out.state)
    names = ["hidden", *dict(problem.core.named_parameters())]
    # Biases whose gradient is zero but for rounding (the key's) have no scale of their own.
    scale = max(g.norm() for g in expected) * 1e-13
    for what, g, wanted in zip(names, found, expected, strict=True):
        assert (g - wanted).norm() <= 1e-12 * wanted.norm() + scale, what


@pytest.mark.parametrize("rollouts", [1, 3])
@pytest.mark.parametrize("per_sequence", [False, True])
def test_depths_and_rollouts(rollouts: int, per_sequence: bool) -> None:
    depth = torch.tensor([2, 1, 4, 3]) if per_sequence else 3
    config = replace(SMALL, dropout=0.5, attn_dropout=0.5)
    problem = make_problem(config, depth=depth, rollouts=rollouts)
    with use_backend("equations"):
        expected = problem.gradients()
    found = problem.gradients()
    assert max(relative(g, wanted) for g, wanted in zip(found, expected, strict=True)) < 1e-11


@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_gradcheck_with_dropout_on(adapter: str, program: str) -> None:
    config = CoreConfig(4, 2, 6, 1, adapter=adapter, dropout=0.25, attn_dropout=0.5)
    core = make_core(config)
    hidden = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    state = torch.randn_like(hidden).detach().requires_grad_() if config.is_recurrent else None
    steps = 2 if config.is_recurrent else 1
    names = list(dict(core.named_parameters()))

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parameters = dict(zip(names, tensors[2:], strict=True))
        out = torch.func.functional_call(
            core,
            parameters,
            (tensors[0], torch.tensor([3, 2])),
            {"num_steps": steps, "state": tensors[1], "return_trajectory": True},
        )
        return out.last, out.trajectory

    inputs = (hidden, state, *(p.detach().clone().requires_grad_() for p in core.parameters()))
    assert torch.autograd.gradcheck(run, inputs, atol=1e-7, rtol=1e-5)


def test_gradient_of_the_given_state() -> None:
    problem = make_problem(SMALL)
    state = torch.randn_like(problem.hidden).requires_grad_()
    grads = []
    for backend in ("equations", "reference"):
        with use_backend(backend):
            out = problem.run(state=state)
            (g,) = torch.autograd.grad(out.last.square().sum(), [state])
            grads.append(g)
    assert relative(grads[1], grads[0]) < 1e-12
    assert grads[0][0, 1:].abs().max() == 0  # padding takes no part


def test_only_the_state_or_only_the_trajectory() -> None:
    problem = make_problem(SMALL)
    for pick in (lambda out: out.state, lambda out: out.trajectory[:, 0], lambda out: out.last):
        grads = []
        for backend in ("equations", "reference"):
            with use_backend(backend):
                loss = pick(problem.run()).square().sum()
                grads.append(torch.autograd.grad(loss, [problem.hidden])[0])
        assert relative(grads[1], grads[0]) < 1e-12


def test_second_derivative_is_refused_not_wrong() -> None:
    problem = make_problem(SMALL)
    (g,) = torch.autograd.grad(
        problem.run().last.square().sum(), [problem.hidden], create_graph=True
    )
    with pytest.raises(RuntimeError, match=r"with use_backend\(\"equations\"\)"):
        g.sum().backward()


def test_keeps_one_state_a_step() -> None:
    """Forward keeps H, and for each step a state and one number a row: nothing of a step's inside."""
    core = make_core(SMALL)
    hidden = torch.randn(64, 16, dtype=torch.float64, requires_grad=True)
    sizes: list[int] = []
    offsets = torch.tensor([0, 32, 64])

    def count(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        core(hidden, cu_seqlens=offsets, num_steps=5)
    weights = sum(parameter.numel() for parameter in core.parameters())
    rows = len(hidden)
    lengths = len(offsets) - 1
    assert sum(sizes) == (1 + 5) * hidden.numel() + 5 * rows + weights + lengths


def test_float32_is_as_close_as_plain_pytorch() -> None:
    """Section 9: error against float64 at most twice that of autograd in the same precision."""
    problem = make_problem(replace(SMALL, dropout=0.5, attn_dropout=0.5), depth=8)
    exact = problem.gradients()
    problem.core.float()
    problem.hidden = problem.hidden.detach().float().requires_grad_()
    errors = {}
    for backend in ("equations", "reference"):
        with use_backend(backend):
            errors[backend] = [
                relative(g.double(), wanted)
                for g, wanted in zip(problem.gradients(), exact, strict=True)
            ]
    scale = max(errors["equations"])
    for mine, yardstick in zip(errors["reference"], errors["equations"], strict=True):
        assert mine <= 2 * yardstick + 0.05 * scale
