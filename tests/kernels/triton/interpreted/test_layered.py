"""The layered plan against the float64 reference, dropout on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lares_kernels import BackendError, CoreConfig, explain, use_backend
from lares_kernels.registry import backends
from lares_kernels.spec.call import Given, GivenBackward
from lares_kernels.spec.serves import ANY_WIDTH, ServesCores
from lares_kernels.triton.backend import TritonBackend, precision_of
from lares_kernels.triton.layered.backward import layered_backward
from lares_kernels.triton.layered.forward import layered_forward
from lares_kernels.triton.layered.gradients import wide_product
from tests.kernels.problems import (
    FEW_LAYERS,
    SMALL,
    Problem,
    exact_problem,
    make_problem,
    name,
    relative,
)

DROPOUT = {"dropout": 0.5, "attn_dropout": 0.25}
FORWARD, GRADIENT = 1e-5, 1e-4
# Odd widths: blocks of 64 columns that do not come in pairs, heads that are no power of two.
WIDE = CoreConfig(d_model=144, n_heads=3, d_ff=40, n_layers=1, **DROPOUT)


class LayeredBackend(TritonBackend):
    """The layered plan for every call."""

    name = "layered"
    serves = ServesCores(dict.fromkeys([torch.float32, torch.bfloat16, torch.float16], ANY_WIDTH))

    def forward(self, call: Any, given: Given) -> Any:
        return layered_forward(call, given, precision_of(call.product_dtype))

    def backward(self, call: Any, given: GivenBackward) -> Any:
        return layered_backward(call, given, precision_of(call.product_dtype))


@pytest.fixture(autouse=True)
def layered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(backends.REFINE.backends, "layered", LayeredBackend())
    backends.REFINE.forget()
    yield
    backends.REFINE.forget()


def in_float32(problem: Problem) -> Problem:
    core = copy.deepcopy(problem.core).float()
    hidden = problem.hidden.detach().float().requires_grad_()
    options = {
        key: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in problem.options.items()
    }
    return Problem(core, hidden, problem.lengths, options)


def check(problem: Problem, steps: int = 1, **limits: float) -> None:
    """Outputs and gradients of the layered plan are the reference's."""
    with use_backend("reference"):
        wanted, wanted_grads = problem.run(), problem.gradients()
    with use_backend("layered"):
        found, found_grads = (single := in_float32(problem)).run(), single.gradients()
    for part in ("last", "trajectory", "state"):
        error = relative(getattr(found, part).double(), getattr(wanted, part))
        assert error < limits.get("forward", FORWARD) * steps, (part, error)
    names = ["hidden", *(parameter for parameter, _ in problem.core.named_parameters())]
    scale = max(float(g.norm()) for g in wanted_grads)
    for parameter, mine, exact in zip(names, found_grads, wanted_grads, strict=True):
        # Some gradients vanish (the key's bias): they are held to the others' size.
        error = float((mine.double() - exact).norm()) / max(float(exact.norm()), 1e-3 * scale)
        assert error < limits.get("gradient", GRADIENT) * steps, (parameter, error)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("config", FEW_LAYERS, ids=name)
def test_every_option(config: CoreConfig) -> None:
    problem = make_problem(replace(config, **DROPOUT), depth=1, seed=2**40 + 1)
    problem.core.train()
    check(problem)


@pytest.mark.parametrize(
    ("config", "length"),
    [(replace(SMALL, d_model=72), 9), (replace(SMALL, d_model=12), 9), (SMALL, 70)],
    ids=["wide", "odd", "long"],
)
def test_the_backend_takes_this_plan_where_tiles_do_not_fit(
    config: CoreConfig, length: int
) -> None:
    problem = in_float32(make_problem(replace(config, n_layers=1), depth=1))
    problem.lengths = torch.tensor([length, 1, 2])
    problem.hidden = torch.randn(3, length, config.d_model)
    with use_backend("triton"):
        plan = explain(config, problem.lengths, 1).plan
        found = problem.run().state
    assert "layer by layer" in plan
    with use_backend("layered"):
        assert torch.equal(problem.run().state, found)


def test_a_run_that_goes_on_from_a_state() -> None:
    problem = make_problem(replace(SMALL, n_layers=1, **DROPOUT), depth=2, steps_done=3)
    problem.options["state"] = torch.randn_like(problem.hidden)
    problem.core.train()
    check(problem)


def test_what_no_plan_serves() -> None:
    config = CoreConfig(d_model=2048, n_heads=16)
    with use_backend("triton"), pytest.raises(BackendError, match="d_model is 2048"):
        explain(config, [3], 1)
    config = CoreConfig(d_model=512, n_heads=1)
    with use_backend("triton"), pytest.raises(BackendError, match="heads are 512 wide"):
        explain(config, [3], 1)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_wide(norm: str) -> None:
    problem = make_problem(replace(WIDE, norm=norm), depth=1)
    problem.core.train()
    with torch.no_grad():
        problem.core.qkv_weight *= 0.3  # else the softmax is so sharp that rounding shows
    check(problem)


def test_sequences_of_several_blocks() -> None:
    config = replace(SMALL, n_heads=1, n_layers=1, **DROPOUT)
    problem = make_problem(config, depth=1)
    problem.core.train()
    problem.lengths = torch.tensor([70, 1, 33, 131])
    problem.hidden = torch.randn(4, 131, 16, dtype=torch.float64, requires_grad=True)
    check(problem)


@pytest.mark.usefixtures("poisoned_memory")
def test_each_sequence_to_its_own_depth() -> None:
    config = replace(SMALL, adapter="gate", norm="pre", n_layers=1, **DROPOUT)
    problem = make_problem(config, depth=torch.tensor([1, 3, 2, 3]), seed=6)
    problem.options["sequence_ids"] = torch.tensor([9, 2, 5, 2**24 - 1])
    problem.core.train()
    check(problem)


def test_rollouts() -> None:
    depth = torch.tensor([[1, 2, 1], [3, 3, 2], [1, 1, 1], [2, 2, 3]])
    config = replace(SMALL, adapter="concat", n_layers=1, **DROPOUT)
    problem = make_problem(config, depth=depth, rollouts=3)
    problem.core.train()
    check(problem)


@pytest.mark.parametrize(("state", "rollouts"), [("zero", 1), ("given", 2)])
def test_other_first_states(state: str, rollouts: int) -> None:
    problem = make_problem(replace(SMALL, n_layers=1), depth=2, rollouts=rollouts)
    shape = (4, 9, 16) if rollouts == 1 else (4, rollouts, 9, 16)
    given = torch.randn(shape, dtype=torch.float64)
    problem.options["state"] = state if state == "zero" else given
    check(problem)


@pytest.mark.parametrize(
    ("norm", "adapter", "depth"),
    [
        ("post", "add", 2),
        ("post", "add", torch.tensor([2, 1, 2, 1])),
        ("pre", "add", torch.tensor([2, 1, 2, 1])),
        ("post", "none", 1),
        ("pre", "none", 1),
    ],
)
def test_rows_that_nobody_reads(norm: str, adapter: str, depth: Any) -> None:
    config = replace(SMALL, norm=norm, adapter=adapter, **DROPOUT)
    problem = make_problem(config, depth=depth)
    grads = []
    for backend, single in (("reference", problem), ("layered", in_float32(problem))):
        with use_backend(backend):
            out = single.run(return_state=False)
        weights = torch.linspace(-1, 2, out.trajectory.numel()).reshape(out.trajectory.shape)
        wanted = [single.hidden, *single.core.parameters()]
        grads.append(
            [out.trajectory, *torch.autograd.grad((out.trajectory * weights).sum(), wanted)]
        )
    scale = max(float(g.norm()) for g in grads[0][1:])
    for exact, mine in zip(*grads, strict=True):
        error = float((mine.detach().double() - exact.detach()).norm())
        assert error < GRADIENT * max(float(exact.detach().norm()), 1e-3 * scale)


def packed(problem: Problem) -> Problem:
    """The same sequences without padding."""
    real = torch.arange(problem.hidden.shape[1]) < problem.lengths[:, None]
    hidden = problem.hidden.detach()[real].requires_grad_()
    cu_seqlens = torch.cat([problem.lengths.new_zeros(1), problem.lengths.cumsum(0)])
    return PackedProblem(problem.core, hidden, problem.lengths, {**problem.options}, cu_seqlens)


class PackedProblem(Problem):
    def __init__(self, core: Any, hidden: Any, lengths: Any, options: Any, cu_seqlens: Any) -> None:
        super().__init__(core, hidden, lengths, options)
        self.cu_seqlens = cu_seqlens

    def run(self, **changes: Any) -> Any:
        asked = {"return_trajectory": True, "return_state": True, **self.options, **changes}
        return self.core(self.hidden, cu_seqlens=self.cu_seqlens, **asked)


def test_packed() -> None:
    config = replace(SMALL, n_layers=1, **DROPOUT)
    problem = make_problem(config, depth=1, rollouts=2)
    problem.core.train()
    single = in_float32(problem)
    with use_backend("layered"):
        padded, lone = single.run(), packed(single).run()
        assert torch.equal(padded.trajectory, lone.trajectory)
        parameters = list(single.core.parameters())
        mine, others = (
            torch.autograd.grad((out.trajectory**3).sum(), parameters) for out in (lone, padded)
        )
        assert all(torch.equal(*pair) for pair in zip(mine, others, strict=True))


def test_the_gradient_of_a_given_state() -> None:
    problem = make_problem(SMALL, depth=torch.tensor([1, 2, 2, 1]), rollouts=1)
    grads = {}
    for backend, single in (("reference", problem), ("layered", in_float32(problem))):
        state = torch.ones(4, 9, 16, dtype=single.hidden.dtype, requires_grad=True)
        with use_backend(backend):
            out = single.run(state=state)
            grads[backend] = torch.autograd.grad((out.last**3).sum(), state)[0]
    assert relative(grads["layered"].double(), grads["reference"]) < GRADIENT


def test_half_precision_keeps_to_twice_the_reference() -> None:
    # float16 stands for bfloat16, which the interpreter cannot multiply.
    problem = make_problem(replace(SMALL, n_layers=1, **DROPOUT), depth=2)
    problem.core.train()
    single = in_float32(problem)
    with use_backend("reference"):
        exact = [problem.run().last, *problem.gradients()]
        rough = [single.run(precision="fp16").last, *single.gradients(precision="fp16")]
    with use_backend("layered"):
        found = [single.run(precision="fp16").last, *single.gradients(precision="fp16")]
    largest = max(float(g.norm()) for g in exact[1:])
    for mine, theirs, wanted in zip(found, rough, exact, strict=True):
        error, allowed = (
            float((g.detach().double() - wanted.detach()).norm()) for g in (mine, theirs)
        )
        assert error <= max(2.0 * allowed, 1e-4 * largest)


def test_two_runs_give_the_same_bits() -> None:
    config = replace(SMALL, n_heads=1, n_layers=1, **DROPOUT)
    problem = make_problem(config, depth=1, rollouts=2)
    problem.core.train()
    single = in_float32(problem)
    with use_backend("layered"):
        for mine, again in zip(single.gradients(), single.gradients(), strict=True):
            assert torch.equal(mine, again)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"lengths": [1, 0, 3, 9]}, "has length 0"), ({"sequence_ids": [0, 1, 2, 2**24]}, "ids run")],
)
def test_bad_values_are_named(changes: dict[str, list[int]], text: str) -> None:
    problem = in_float32(make_problem(SMALL))
    values = {key: torch.tensor(value) for key, value in changes.items()}
    lengths = values.pop("lengths", problem.lengths)
    with use_backend("layered"), pytest.raises(ValueError, match=text):
        problem.core(problem.hidden, lengths, num_steps=2, **values)


def test_weight_gradients_are_summed_in_float32() -> None:
    """All rows are alike, so that sums pass float16's range where no row's gradient does.

    As the fused plan sums them: neither may overflow, and errors are those of the rows alone.
    """
    config = replace(SMALL, n_layers=1, adapter="concat")
    core = exact_problem(config, [16] * 2)[0]
    generator = torch.Generator().manual_seed(1)
    hidden = 1.0 + 0.01 * torch.randn(2, 16, config.d_model, generator=generator).double()
    hidden *= torch.randn(config.d_model, generator=generator).double()
    weights = 1e4 * torch.randn(config.d_model, generator=generator).double()

    def gradients_of_weights(backend: str, dtype: torch.dtype, **options: Any) -> dict[str, Tensor]:
        core.to(dtype)
        with use_backend(backend):
            out = core(hidden.to(dtype), state="zero", num_steps=1, return_state=True, **options)
        found = torch.autograd.grad((out.state * weights).sum(), [*core.parameters()])
        return dict(zip(dict(core.named_parameters()), found, strict=True))

    exact = gradients_of_weights("equations", torch.float64)
    found = {
        plan: gradients_of_weights(plan, torch.float32, precision="fp16")
        for plan in ("triton", "layered")
    }
    assert max(float(g.abs().max()) for g in exact.values()) > 65504
    errors = {
        plan: {name: relative(g[name].double(), wanted) for name, wanted in exact.items()}
        for plan, g in found.items()
    }
    for parameter, wanted in exact.items():
        if parameter.endswith("weight") and float(wanted.norm()) > 100:
            assert errors["layered"][parameter] <= 2.0 * errors["triton"][parameter] + 1e-4, (
                parameter
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_product_of_16_bits_is_float32(dtype: torch.dtype) -> None:
    a, b = (torch.randn(*shape).add(3).to(dtype) for shape in ((5, 9000), (9000, 3)))
    found, exact = wide_product(a, b), a.double() @ b.double()
    assert float(exact.max()) > 65504
    # Sums of 9,000 in float32: how near they come depends on the order in which a processor's library
    # adds. Rounded to 16 bits they would be off by 1e-4 and more.
    assert relative(found.double(), exact) < 1e-5
    with FakeTensorMode():  # the one that cards have
        on_a_card = (torch.empty(t.shape, dtype=dtype, device="cuda") for t in (a, b))
        assert wide_product(*on_a_card).dtype == torch.float32
