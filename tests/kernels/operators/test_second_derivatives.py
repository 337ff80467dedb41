"""Second derivatives and forward mode: backend ``equations`` has them, the others say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, functional

import lares_kernels as lk
from lares_kernels import CoreConfig, RecurrentCore
from lares_kernels.binding.cpu_library import load
from lares_kernels.spec.options import CallOptions, CallTensors
from tests.kernels.problems import make_core

BACKENDS = ["reference"] + ([] if isinstance(load(), str) else ["cpu"])
SAYS = r'with use_backend\("equations"\)'
CONFIG = CoreConfig(d_model=4, n_heads=2, d_ff=6, n_layers=1)
Loss = Callable[[Tensor], Tensor]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with lk.use_backend(request.param):
        yield request.param


def recurrence(dtype: torch.dtype) -> tuple[Loss, Tensor]:
    """A loss of hidden."""
    core = make_core(CONFIG).to(dtype).eval()
    lengths = torch.tensor([2])

    def loss(hidden: Tensor) -> Tensor:
        out = core(hidden, lengths, num_steps=2, return_trajectory=True)
        return out.trajectory.sin().sum()

    return loss, torch.randn(1, 2, 4, dtype=dtype)


def of_a_weight(dtype: torch.dtype) -> tuple[Loss, Tensor]:
    """A loss of a parameter, whose gradient's gradient is not hidden's."""
    core = make_core(CONFIG).to(dtype).eval()
    hidden = torch.randn(1, 2, 4, dtype=dtype)
    parameters = {name: value.detach() for name, value in core.named_parameters()}

    def loss(weight: Tensor) -> Tensor:
        given = {**parameters, "up_bias": weight}
        return lk.refine(CONFIG, given, hidden, num_steps=2).last.sin().sum()

    return loss, parameters["up_bias"].clone()


def linear(dtype: torch.dtype) -> tuple[Loss, Tensor]:
    """A loss that is linear in the result: what comes back is a constant."""
    core = make_core(CONFIG).to(dtype).eval()

    def loss(hidden: Tensor) -> Tensor:
        return core(hidden, num_steps=2).last.sum()

    return loss, torch.randn(1, 2, 4, dtype=dtype)


def catalogue(dtype: torch.dtype) -> tuple[Loss, Tensor]:
    items, chosen = torch.randn(9, 4, dtype=dtype), torch.tensor([1, 5, 7])

    def loss(queries: Tensor) -> Tensor:
        return lk.catalogue_cross_entropy(queries, items, chosen)

    return loss, torch.randn(3, 4, dtype=dtype)


def table(dtype: torch.dtype) -> tuple[Loss, Tensor]:
    queries, chosen = torch.randn(3, 4, dtype=dtype), torch.tensor([1, 5, 7])

    def loss(items: Tensor) -> Tensor:
        found = lk.catalogue_log_probability(queries, items, chosen, scores="cosine")
        assert isinstance(found, Tensor)
        return found.square().sum()

    return loss, torch.randn(9, 4, dtype=dtype)


def direction(x: Tensor) -> Tensor:
    """Not the same everywhere, to which LayerNorm would be blind."""
    return torch.linspace(-1, 2, x.numel(), dtype=x.dtype).reshape(x.shape).square()


LOSSES = (recurrence, of_a_weight, linear, catalogue, table)


def losses(*ordinary: Any) -> Any:
    """All of them, of which these are for every run."""
    every = [
        each if each in ordinary else pytest.param(each, marks=pytest.mark.long) for each in LOSSES
    ]
    return pytest.mark.parametrize("make", every)


def twice(loss: Loss, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(x), [x], create_graph=True)
    g.square().sum().backward()
    assert x.grad is not None
    return x.grad


def grad_of_grad(loss: Loss, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(x), [x], create_graph=True)
    return torch.autograd.grad(g.square().sum(), [x])[0]


def accumulated(loss: Loss, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    loss(x).backward(create_graph=True)
    assert x.grad is not None
    return torch.autograd.grad(x.grad.square().sum(), [x])[0]


def forward_mode(loss: Loss, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        out = loss(forward_ad.make_dual(x, direction(x)))
        tangent = forward_ad.unpack_dual(out).tangent
        assert tangent is not None
        return tangent.clone()


def forward_mode_without_gradients(loss: Loss, x: Tensor) -> Tensor:
    with torch.no_grad():
        return forward_mode(loss, x)


WAYS: dict[str, Callable[[Loss, Tensor], Any]] = {
    "create_graph, then backward": twice,
    "grad of a grad": grad_of_grad,
    "backward with create_graph": accumulated,
    "functional.hvp": lambda loss, x: functional.hvp(loss, x, direction(x)),
    "functional.vhp": lambda loss, x: functional.vhp(loss, x, direction(x)),
    "functional.hessian": functional.hessian,
    "functional.hessian, vectorized": lambda loss, x: functional.hessian(loss, x, vectorize=True),
    "functional.jvp": lambda loss, x: functional.jvp(loss, x, direction(x)),
    "func.grad of func.grad": lambda loss, x: torch.func.grad(
        lambda x: torch.func.grad(loss)(x).square().sum()
    )(x),
    "func.hessian": lambda loss, x: torch.func.hessian(loss)(x),
    "func.jacrev of func.grad": lambda loss, x: torch.func.jacrev(torch.func.grad(loss))(x),
    "func.jacfwd": lambda loss, x: torch.func.jacfwd(loss)(x),
    "func.jvp": lambda loss, x: torch.func.jvp(loss, (x,), (direction(x),)),
    "func.jvp of func.grad": lambda loss, x: torch.func.jvp(
        torch.func.grad(loss), (x,), (direction(x),)
    ),
    "forward mode": forward_mode,
    "forward mode without gradients": forward_mode_without_gradients,
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=[*WAYS])


@losses(of_a_weight, linear, table)
@EVERY_WAY
def test_only_the_equations_have_them(make: Any, way: Any, backend: str) -> None:
    loss, x = make(torch.float32)
    with pytest.raises(RuntimeError, match=SAYS) as caught:
        way(loss, x)
    assert "\n" not in str(caught.value)


@losses(recurrence, catalogue)
@EVERY_WAY
def test_the_equations_have_them(make: Any, way: Any) -> None:
    loss, x = make(torch.float64)
    with lk.use_backend("equations"):
        found = way(loss, x)
        wanted = of_differences(loss, x)
    flat = found[1] if isinstance(found, tuple) else found
    names = {each: name for name, each in WAYS.items()}
    if names[way] in wanted:
        torch.testing.assert_close(flat, wanted[names[way]], rtol=1e-4, atol=1e-5)
    assert bool(torch.isfinite(flat).all())
    assert float(flat.abs().max()) > 0


def of_differences(loss: Loss, x: Tensor) -> dict[str, Tensor]:
    """Some of them by differences of first derivatives, or of the loss."""
    step = 1e-5

    def slope(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(loss(x), [x])[0]

    v = direction(x)
    along = ((slope(x + step * v) - slope(x - step * v)) / (2 * step)).detach()
    along_loss = ((loss(x + step * v) - loss(x - step * v)) / (2 * step)).detach()
    return {
        "functional.hvp": along,
        "functional.vhp": along,
        "func.jvp of func.grad": along,
        "func.jvp": along_loss,
        "functional.jvp": along_loss,
        "forward mode": along_loss,
    }


@losses(of_a_weight, table)
def test_first_derivatives_of_every_output_are_had(make: Any, backend: str) -> None:
    loss, x = make(torch.float32)

    def outputs(x: Tensor) -> Tensor:
        return torch.stack([loss(x), 2.0 * loss(x * 0.5)])

    found = torch.func.jacrev(outputs)(x)
    for create_graph in (False, True):
        wanted = functional.jacobian(outputs, x, create_graph=create_graph)
        torch.testing.assert_close(found, wanted.detach())
    if make in (catalogue, table):
        torch.testing.assert_close(functional.jacobian(outputs, x, vectorize=True), found)
    else:
        with pytest.raises(RuntimeError, match=SAYS):
            functional.jacobian(outputs, x, vectorize=True)


def test_a_gradient_may_be_part_of_a_graph(backend: str) -> None:
    """What is not differentiated twice takes no harm from ``create_graph``."""
    loss, x = recurrence(torch.float32)
    x = x.clone().requires_grad_()
    y = torch.randn_like(x).requires_grad_()
    (g,) = torch.autograd.grad(loss(x), [x], create_graph=True)
    (found,) = torch.autograd.grad((g.detach() * y).sum(), [y])
    (wanted,) = torch.autograd.grad(loss(x), [x])
    assert torch.equal(found, wanted)


def test_vmap_names_the_equations_too(backend: str) -> None:
    loss, x = recurrence(torch.float32)
    with pytest.raises(RuntimeError, match=SAYS):
        torch.func.vmap(torch.func.grad(loss))(x[None])
    loss, x = recurrence(torch.float64)
    with lk.use_backend("equations"):
        both = torch.stack([x, x + 1])
        found = torch.func.vmap(torch.func.grad(loss))(both)
        for mine, each in zip(found, both, strict=True):
            torch.testing.assert_close(mine, torch.func.grad(loss)(each))


def test_a_loss_that_draws_says_so() -> None:
    core = RecurrentCore(CONFIG)

    def loss(hidden: Tensor) -> Tensor:
        return core(hidden, num_steps=2).last.sin().sum()

    with pytest.raises(RuntimeError, match=SAYS):
        torch.func.hessian(loss)(torch.randn(1, 2, 4))


def operator_arguments(backend: str, differentiates: bool) -> list[Any]:
    core = make_core(CONFIG).float()
    hidden = torch.randn(1, 2, 4).requires_grad_()
    tensors = CallTensors(torch.tensor([2]), None, None, torch.tensor(7))
    options = CallOptions(
        CONFIG.key, backend, "fp32", max_steps=2, wants_state=True, differentiates=differentiates
    )
    return [hidden, None, [p.detach() for p in core.parameters()], *tensors, *options]


@pytest.mark.parametrize("differentiates", [True, False])
def test_the_operators_have_gradients(differentiates: bool, backend: str) -> None:
    arguments = operator_arguments(backend, differentiates)
    trajectory, state, _ = torch.ops.lares_kernels.refine(*arguments)
    loss = trajectory.sin().sum() + state.cos().sum()
    (found,) = torch.autograd.grad(loss, [arguments[0]], create_graph=True)
    core = make_core(CONFIG).float()
    out = core(
        arguments[0], arguments[3], num_steps=2, seed=7, return_trajectory=True, return_state=True
    )
    (wanted,) = torch.autograd.grad(
        out.trajectory.sin().sum() + out.state.cos().sum(), [arguments[0]]
    )
    torch.testing.assert_close(found.detach(), wanted)
    with pytest.raises(RuntimeError, match=SAYS):
        found.sum().backward()
    with pytest.raises(RuntimeError, match=SAYS), forward_ad.dual_level():
        dual = forward_ad.make_dual(arguments[0].detach(), torch.ones(1, 2, 4))
        torch.ops.lares_kernels.refine(dual, *arguments[1:])

    def of_hidden(hidden: Tensor) -> Tensor:
        trajectory, state, _ = torch.ops.lares_kernels.refine(hidden, *arguments[1:])
        return trajectory.sin().sum() + state.cos().sum()

    torch.testing.assert_close(torch.func.grad(of_hidden)(arguments[0].detach()), wanted)


def test_the_catalogues_operators_have_gradients(backend: str) -> None:
    queries, items = torch.randn(3, 4).requires_grad_(), torch.randn(9, 4).requires_grad_()
    chosen, options = torch.tensor([1, 5, 7]), ("dot", 0.5, backend, "fp32")
    operators = torch.ops.lares_kernels
    found, _, _ = operators.catalogue_log_probability(queries, items, chosen, None, *options, False)
    grads = torch.autograd.grad(found.sin().sum(), [queries, items], create_graph=True)
    other = lk.catalogue_log_probability(queries, items, chosen, temperature=0.5)
    assert isinstance(other, Tensor)
    for mine, wanted in zip(
        grads, torch.autograd.grad(other.sin().sum(), [queries, items]), strict=True
    ):
        torch.testing.assert_close(mine.detach(), wanted)
        with pytest.raises(RuntimeError, match=SAYS):
            mine.sum().backward(retain_graph=True)
    scores, _ = operators.catalogue_top_k(queries, items, None, *options, 2)
    assert not scores.requires_grad
    assert not operators.catalogue_ranks(queries, items, chosen, None, *options).requires_grad


def test_a_compiled_program_does_not_lose_them() -> None:
    loss, x = recurrence(torch.float32)
    for name, says in (("eager", SAYS), ("aot_eager", "double backward")):
        torch._dynamo.reset()
        with pytest.raises(RuntimeError, match=says):
            twice(torch.compile(loss, backend=name), x)
