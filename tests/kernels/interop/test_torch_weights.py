"""Weights made as they are needed: parametrised, normed, pruned, of DataParallel's replicas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from lares_kernels import RecurrentCore, UnsupportedModuleError, from_torch
from tests.kernels.problems import SMALL, make_core

HIDDEN, LENGTHS = torch.randn(3, 4, 16), torch.tensor([3, 1, 4])


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def scaled(module: nn.Module, name: str) -> None:
    """Twice the weight, where normed ones take the factor that they have for it."""
    with torch.no_grad():
        for found, parameter in module.named_parameters():
            if found in (f"{name}_g", f"parametrizations.{name}.original0"):
                parameter.mul_(2)
                return
    raise AssertionError


def parametrised(module: nn.Module, name: str) -> None:
    parametrize.register_parametrization(module, name, Twice())


def normed(norm: Callable[..., nn.Module]) -> Callable[[nn.Module, str], None]:
    def change(module: nn.Module, name: str) -> None:
        norm(module, name)
        scaled(module, name)

    return change


def pruned(module: nn.Module, name: str) -> None:
    prune.l1_unstructured(module, name, amount=0.0)
    with torch.no_grad():
        getattr(module, f"{name}_orig").mul_(2)


CHANGES: dict[str, Callable[[nn.Module, str], None]] = {
    "parametrize": parametrised,
    "weight_norm by hooks": normed(nn.utils.weight_norm),
    "weight_norm": normed(parametrizations.weight_norm),
    "prune": pruned,
}
changes = pytest.mark.parametrize("change", CHANGES)


def steps(module: nn.Module, run: Callable[[nn.Module], Tensor]) -> list[Tensor]:
    """Outputs before and after a step of training, and without gradients."""
    first = run(module)
    first.square().sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.0 * parameter.grad)
    second = run(module)
    second.square().sum().backward()
    with torch.no_grad():
        return [first, second, run(module)]


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@changes
@pytest.mark.parametrize("name", ["up_weight", "concat_weight"])
def test_of_a_core(name: str, change: str) -> None:
    core = RecurrentCore(replace(SMALL, adapter="concat"))
    twice = copy.deepcopy(core)
    CHANGES[change](core, name)
    with torch.no_grad():
        getattr(twice, name).mul_(2)

    def run(module: nn.Module) -> Tensor:
        last: Tensor = module(HIDDEN, LENGTHS, num_steps=2, state="zero").last
        return last

    for mine, wanted in zip(steps(core, run), steps(twice, run), strict=True):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("change", ["parametrize"])
def test_of_a_compiled_core(change: str) -> None:
    torch._dynamo.reset()
    core = RecurrentCore(SMALL)
    CHANGES[change](core, "up_weight")
    compiled = torch.compile(core, backend="eager")
    out = compiled(HIDDEN, LENGTHS, state="zero").last
    torch.testing.assert_close(out, core(HIDDEN, LENGTHS, state="zero").last)


def encoder() -> nn.Module:
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@changes
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "name"),
    [("linear1", "weight"), ("self_attn.out_proj", "weight"), ("norm2", "weight")],
)
def test_of_an_encoder(part: str, name: str, when: str, change: str) -> None:
    if part == "norm2" and "norm" in change:
        pytest.skip("a vector has no norm of its own")
    theirs, twice = encoder(), from_torch(encoder())
    with torch.no_grad():
        getattr(twice.layers[1].get_submodule(part), name).mul_(2)
    ours = from_torch(theirs) if when == "after" else None
    CHANGES[change](theirs.layers[1].get_submodule(part), name)
    ours = ours or from_torch(theirs)

    def run(module: nn.Module) -> Tensor:
        out: Tensor = module(HIDDEN, is_causal=True)
        return out

    for mine, wanted in zip(steps(ours, run), steps(twice, run), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_other_hooks_stay_refused() -> None:
    theirs = encoder()
    theirs.layers[0].linear1.register_forward_pre_hook(lambda module, inputs: None)
    with pytest.raises(UnsupportedModuleError, match=r"linear1\._forward_pre_hooks is 1"):
        from_torch(theirs)


def replica(module: nn.Module) -> Any:
    """What ``nn.parallel.replicate`` makes for one device, without a device."""
    made = module._replicate_for_data_parallel()
    made._former_parameters = {}
    for name, child in module._modules.items():
        made._modules[name] = None if child is None else replica(child)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            setattr(made, name, parameter * 1.0)
            made._former_parameters[name] = getattr(made, name)
    return made


@pytest.mark.parametrize("kind", ["core", "encoder"])
def test_of_replicas(kind: str) -> None:
    module: Any = make_core(SMALL).float() if kind == "core" else from_torch(encoder())
    found = []
    for each in (replica(module), module):
        out = each(HIDDEN, LENGTHS).last if kind == "core" else each(HIDDEN, is_causal=True)
        module.zero_grad()
        out.square().sum().backward()
        found.append([out, *(parameter.grad for parameter in module.parameters())])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted)
