"""The operators under PyTorch's own machinery: opcheck, compile, export, torch.func."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lares_kernels import (
    CoreConfig,
    RecurrentCore,
    catalogue_log_probability,
    refine,
    use_backend,
)
from lares_kernels.binding.cpu_library import load
from lares_kernels.spec.options import CallOptions, CallTensors
from tests.kernels.problems import SMALL, make_core

NOISY = replace(SMALL, dropout=0.5, attn_dropout=0.5)
BACKENDS = ["reference"] + ([] if isinstance(load(), str) else ["cpu"])


def arguments(config: CoreConfig, backend: str, packed: bool) -> tuple[Any, ...]:
    core = make_core(config, scale=0.1).float()
    lengths = torch.tensor([3, 1, 4])
    hidden = torch.randn(8, 16) if packed else torch.randn(3, 4, 16)
    options = CallOptions(
        config.key, backend, "fp32", max_steps=3, dropout=True, wants_state=True,
        differentiates=True, keeps_padding=True,
    )  # fmt: skip
    tensors = CallTensors(lengths, None, None, torch.tensor(7))
    return (hidden, None, [p.detach() for p in core.parameters()], *tensors, *options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("packed", [False, True])
def test_opcheck(backend: str, packed: bool) -> None:
    args = arguments(NOISY, backend, packed)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.lares_kernels.refine.default, args, test_utils=checks)
    trajectory, state, kept = torch.ops.lares_kernels.refine(*args)
    grads = (torch.ones_like(trajectory), torch.ones_like(state))
    torch.library.opcheck(
        torch.ops.lares_kernels.refine_backward.default, (*args, kept, *grads), test_utils=checks
    )


def results(run: Any, core: RecurrentCore, hidden: Tensor, lengths: Tensor, steps: int, seed: int):
    hidden = hidden.clone().requires_grad_()
    last = run(core, hidden, lengths, steps, seed)
    return [last, *torch.autograd.grad(last.square().sum(), [hidden, *core.parameters()])]


@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_without_a_break_and_without_recompiling(backend: str) -> None:
    core = make_core(NOISY, scale=0.1).float()
    hidden, lengths = torch.randn(3, 4, 16), torch.tensor([3, 1, 4])

    def run(core: RecurrentCore, hidden: Tensor, lengths: Tensor, steps: int, seed: int) -> Tensor:
        return core(hidden * 2, lengths, num_steps=steps, seed=seed).last + 1

    torch._dynamo.reset()
    with use_backend(backend):
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        for number, (steps, seed) in enumerate([(3, 5), (4, 6), (7, 100), (12, 2**40), (2, 9)]):
            if number == 3:  # by now steps and seed are symbols
                torch.compiler.set_stance("fail_on_recompile")
            try:
                found = results(compiled, core, hidden, lengths, steps, seed)
            finally:
                torch.compiler.set_stance("default")
            wanted = results(run, core, hidden, lengths, steps, seed)
            for mine, exact in zip(found, wanted, strict=True):
                torch.testing.assert_close(mine, exact)


class Serve(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = make_core(SMALL, scale=0.1).float()

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        return self.core(hidden, lengths, num_steps=4, state="zero").last


def test_export() -> None:
    serve = Serve().eval()
    hidden, lengths = torch.randn(3, 4, 16), torch.tensor([3, 1, 4])
    program = torch.export.export(serve, (hidden, lengths))
    torch.testing.assert_close(program.module()(hidden, lengths), serve(hidden, lengths))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_computes_again() -> None:
    serve = Serve().eval()
    lengths = torch.tensor([3, 1, 4])
    with torch.no_grad():
        traced = torch.jit.trace(serve, (torch.randn(3, 4, 16), lengths))
        hidden = torch.randn(3, 4, 16)
        torch.testing.assert_close(traced(hidden, lengths), serve(hidden, lengths))


def test_profiles_and_graphs_show_the_functions_name() -> None:
    core, hidden = make_core(SMALL).float(), torch.randn(3, 4, 16, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        refined = core(hidden, torch.tensor([3, 1, 4]), return_state=True).state
        scored = catalogue_log_probability(
            hidden[:, 0], torch.randn(5, 16), torch.tensor([1, 2, 3])
        )
        (refined.sum() + scored.sum()).backward()
    shown = {event.key for event in found.key_averages()}
    for name in ("RefineFunction", "CatalogueFunction"):
        assert {name, f"{name}Backward"} <= shown


def test_func_grad_and_vmaps_refusal() -> None:
    core = make_core(SMALL, scale=0.1).float()
    parameters = {name: p.detach() for name, p in core.named_parameters()}
    hidden = torch.randn(3, 4, 16)

    def loss(parameters: dict[str, Tensor], hidden: Tensor) -> Tensor:
        return torch.func.functional_call(core, parameters, (hidden,), {"num_steps": 3}).last.sum()

    found = torch.func.grad(loss)(parameters, hidden)
    wanted = torch.autograd.grad(core(hidden, num_steps=3).last.sum(), list(core.parameters()))
    for mine, exact in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(mine, exact)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, hidden[None])


def negated(values: Tensor) -> Tensor:
    """-values as a view that PyTorch negates when it is read."""
    return torch._neg_view(values)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("which", ["hidden", "up_weight", "state"])
def test_views_that_are_negated_as_they_are_read(backend: str, which: str) -> None:
    core = make_core(SMALL).float()
    parameters = {name: value.detach() for name, value in core.named_parameters()}
    tensors = {"hidden": torch.randn(3, 4, 16), "state": torch.randn(3, 4, 16), **parameters}

    def run(view: Any) -> list[Tensor]:
        given = {name: value.clone().requires_grad_() for name, value in tensors.items()}
        seen = {**given, which: view(given[which])}
        hidden, state = seen.pop("hidden"), seen.pop("state")
        out = refine(SMALL, seen, hidden, num_steps=2, state=state, return_trajectory=True)
        weights = view(torch.arange(1.0, 97.0).reshape(3, 2, 16))
        return [out.last, *torch.autograd.grad(out.trajectory, [*given.values()], weights)]

    with use_backend(backend):
        for mine, wanted in zip(run(negated), run(torch.neg), strict=True):
            assert torch.equal(mine, wanted)
        with torch.no_grad():
            seen = {**tensors, which: negated(tensors[which])}
            hidden, state = seen.pop("hidden"), seen.pop("state")
            found = refine(SMALL, seen, hidden, num_steps=2, state=state).last
            seen = {**tensors, which: -tensors[which]}
            hidden, state = seen.pop("hidden"), seen.pop("state")
            assert torch.equal(found, refine(SMALL, seen, hidden, num_steps=2, state=state).last)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_of_a_subclass_is_asked_itself(backend: str) -> None:
    class Doubled(Tensor):
        """Stands for twice the numbers that it holds."""

        held: Tensor

        @staticmethod
        def __new__(cls, held: Tensor) -> Doubled:
            made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype)
            made.held = held
            return made

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            def plain(value: Any) -> Any:
                return 2 * value.held if isinstance(value, Doubled) else value

            return func(*tree_map(plain, args), **tree_map(plain, kwargs or {}))

    core = make_core(SMALL).float()
    parameters = {name: value.detach() for name, value in core.named_parameters()}
    hidden = torch.randn(3, 4, 16)
    with use_backend(backend), torch.no_grad():
        for _ in range(2):
            wrapped = {**parameters, "up_weight": Doubled(parameters["up_weight"])}
            found = refine(SMALL, wrapped, hidden, num_steps=2).last
            doubled = {**parameters, "up_weight": 2 * parameters["up_weight"]}
            assert torch.equal(found, refine(SMALL, doubled, hidden, num_steps=2).last)
