"""Backends that register themselves: those of this package, and anybody else's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import lares_kernels as lk
from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.reference.backend import ReferenceBackend
from lares_kernels.reference.catalogue import ReferenceCatalogue
from lares_kernels.registry.backends import CATALOGUE, REFINE, register, register_catalogue
from lares_kernels.spec.choices import Adapter
from lares_kernels.spec.errors import BackendError
from lares_kernels.spec.options import CallOptions
from lares_kernels.spec.serves import ServesCatalogues, ServesCores

CORE = CoreConfig(16, 2, 24, 1)


class Theirs(ReferenceBackend):
    """Somebody else's backend: it adds and concatenates, in float32, one rollout and no states."""

    name = "theirs"
    preference = 40
    automatic = False
    serves = ServesCores(
        widths={torch.float32: (16, 32)},
        adapters=(Adapter.ADD, Adapter.CONCAT),
        options=("max_steps", "differentiates", "dropout", "keeps_padding"),
    )

    def __init__(self) -> None:
        self.calls = 0

    def forward(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        return super().forward(*arguments)


class TheirCatalogue(ReferenceCatalogue):
    """Somebody else's catalogue ops."""

    name = "theirs"
    automatic = False
    serves = ServesCatalogues(widths={torch.float32: range(1, 17)})


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    backend = Theirs()
    register(backend)
    register_catalogue(TheirCatalogue())
    yield backend
    for registry in (REFINE, CATALOGUE):
        del registry.backends["theirs"]
        registry.forget()


def step(config: CoreConfig = CORE, **options: Any) -> list[Tensor]:
    """Last states and gradients."""
    core = RecurrentCore(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in core.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    hidden = torch.randn(2, 3, config.d_model, generator=generator).requires_grad_()
    last = core(hidden, seed=3, num_steps=2, **options).last
    return [last, *torch.autograd.grad(last.sum(), [hidden, *core.parameters()])]


def test_one_that_is_asked_for(theirs: Theirs) -> None:
    with use_backend("reference"):
        expected = step()
    with use_backend("theirs"):
        found = step()
        assert lk.explain(CORE, [3, 2]).backend == "theirs"
    assert theirs.calls == 1
    for mine, right in zip(found, expected, strict=True):
        assert torch.equal(mine, right)
    assert lk.available_backends()["theirs"] == "usable"


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({"adapter": "gate"}, {}, "adapter is 'gate'; it serves add, concat"),
        ({"d_model": 24}, {}, "d_model is 24; it serves 16, 32"),
        ({}, {"precision": "bf16"}, "products in torch.bfloat16; it serves torch.float32"),
        ({}, {"rollouts": 2}, "the call has rollouts; of its options it serves max_steps"),
        ({}, {"state": "zero"}, "the call has zero_state; "),
        ({}, {"return_state": True}, "the call has wants_state; "),
    ],
)
def test_what_it_does_not_serve(
    changed: dict[str, Any], options: dict[str, Any], said: str, theirs: Theirs
) -> None:
    """It is refused where it is asked for by name, and goes to another where it is not."""
    config = CoreConfig(**{"d_model": 16, "n_heads": 2, "d_ff": 24, "n_layers": 1, **changed})
    with use_backend("theirs"), pytest.raises(BackendError) as refused:
        step(config, **options)
    assert str(refused.value).startswith(
        f"backend 'theirs', asked for by use_backend, cannot run this call: {said}"
    )
    theirs.automatic = True
    REFINE.forget()
    step(config, **options)
    assert theirs.calls == 0
    step()
    assert theirs.calls == 1  # it is the preferred one


def test_operators_refuse_likewise(theirs: Theirs) -> None:
    core = RecurrentCore(CORE)
    given = [torch.randn(2, 3, 16), None, [*core.parameters()]]
    tensors = [torch.tensor([3, 2]), None, None, torch.tensor(1)]
    run = torch.ops.lares_kernels.refine
    options = CallOptions(CORE.key, "theirs", "fp32", max_steps=2)
    run(*given, *tensors, *options)
    assert theirs.calls == 1
    with pytest.raises(BackendError, match="the call has wants_state"):
        run(*given, *tensors, *options._replace(wants_state=True))


@pytest.mark.usefixtures("theirs")
def test_catalogue_ops() -> None:
    items = torch.randn(9, 16)
    with use_backend("reference"):
        expected = lk.catalogue_top_k(items[:2], items, 3)
    with use_backend("theirs"):
        assert torch.equal(lk.catalogue_top_k(items[:2], items, 3).ids, expected.ids)
        with pytest.raises(BackendError, match="items are 17 wide; it serves up to 16"):
            lk.catalogue_top_k(torch.randn(2, 17), torch.randn(9, 17), 3)


@pytest.mark.usefixtures("theirs")
def test_a_compiled_program() -> None:
    with use_backend("theirs"):
        core = RecurrentCore(CORE).eval()
        hidden = torch.randn(2, 3, 16)
        compiled = torch.compile(core, backend="eager", fullgraph=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(hidden).last, core(hidden).last)


def test_one_without_catalogue_ops_is_named_as_such() -> None:
    items = torch.randn(3, 16)
    with (
        use_backend("cuda"),
        pytest.raises(
            BackendError, match="names backend 'cuda'; of this catalogue op there are cpu"
        ),
    ):
        lk.catalogue_top_k(items, items, 1)


@pytest.mark.usefixtures("theirs")
def test_a_name_is_taken_once() -> None:
    for again in (Theirs(), type("Mine", (Theirs,), {"name": "cpu"})()):
        with pytest.raises(BackendError, match=f"there is a backend '{again.name}' already"):
            register(again)


def test_the_order_does_not_depend_on_who_is_imported_first() -> None:
    program = (
        "import lares_kernels.reference.backend, lares_kernels.triton.catalogue\n"
        "from lares_kernels.registry.backends import CATALOGUE, REFINE\n"
        "print(*REFINE.backends, *CATALOGUE.backends)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout.decode().split() == [
        *("cpu", "cuda", "triton", "reference", "equations"),
        *("cpu", "triton", "reference", "equations"),
    ]
