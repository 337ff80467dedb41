"""Triton's plans under its interpreter, some of which do not start: the next one runs the call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources, PTXASError

from lares_kernels import (
    BackendError,
    CoreConfig,
    RecurrentCore,
    catalogue_ranks,
    explain,
    use_backend,
)
from lares_kernels.registry import backends, plan_failures, self_check
from lares_kernels.triton.fused.kernels import backward, forward, prepare
from lares_kernels.triton.kernels import catalogue
from lares_kernels.triton.launch import settings
from lares_kernels.triton.launch.settings import use_weights
from lares_kernels.triton.layered.kernels import rows as layered_rows

CORE = CoreConfig(16, 2, 24, 2, dropout=0.5)
ROOM = OutOfResources(300_000, 232_448, "shared memory")
UNKNOWN = PTXASError("ptxas fatal   : Value 'sm_130a' is not defined for option 'gpu-name'")


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process, in which Triton's kernels are the ones to choose."""
    monkeypatch.setenv(self_check.VARIABLE, "0")
    for among in (backends.REFINE.backends, backends.CATALOGUE.backends):
        monkeypatch.setattr(among["cpu"], "automatic", False)
        monkeypatch.setattr(among["triton"], "automatic", True)

    def forget() -> None:
        plan_failures.forget()
        backends._logged.clear()
        backends.REFINE.forget()
        backends.CATALOGUE.forget()

    forget()
    yield
    forget()


class Kernel:
    """A kernel that raises, always or for some compile-time constants, and counts that."""

    def __init__(self, kernel: Any, error: Exception, where: Callable[[Any], bool]) -> None:
        self.kernel, self.error, self.where, self.refused = kernel, error, where, 0

    def __getitem__(self, grid: Any) -> Any:
        def launch(*given: Any, **named: Any) -> None:
            if self.where(named.get("C")):
                self.refused += 1
                raise self.error
            self.kernel[grid](*given, **named)

        return launch


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    """Put a kernel that raises in the place of one of a module."""

    def put(
        module: Any, name: str, error: Exception, where: Callable[[Any], bool] = lambda _: True
    ) -> Kernel:
        planted = Kernel(getattr(module, name), error, where)
        monkeypatch.setattr(module, name, planted)
        return planted

    return put


def step(core: RecurrentCore, training: bool = True) -> list[Tensor]:
    """Last states, and in training gradients, of sequences with depths of their own."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 5, 16, generator=generator).requires_grad_(training)
    depths = torch.tensor([1, 2, 2])
    core.train(training)
    with torch.set_grad_enabled(training):
        last = core(hidden, lengths=torch.tensor([2, 5, 3]), num_steps=depths, seed=7).last
    if not training:
        return [last]
    return [last.detach(), *torch.autograd.grad(last.square().sum(), [hidden, *core.parameters()])]


def core_and_expected(training: bool = True) -> tuple[RecurrentCore, list[Tensor]]:
    torch.manual_seed(1)
    core = RecurrentCore(CORE)
    with use_backend("reference"):
        return core, step(core, training)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, right in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.fixture
def resident_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rules that keep the weights on the chip are preferred, as on cards where they fit."""
    rules = settings.settings("interpreter")
    ordered = tuple(sorted(rules, key=lambda rule: not rule.resident))
    monkeypatch.setattr(settings, "settings", lambda _: ordered)
    settings.setting.cache_clear()
    yield
    settings.setting.cache_clear()


@pytest.mark.usefixtures("resident_first")
def test_resident_streamed_layered_reference(
    refuse: Callable[..., Kernel], caplog: pytest.LogCaptureFixture
) -> None:
    core, expected = core_and_expected(training=False)
    assert "weights resident" in explain(CORE, [3], 2).plan
    resident = refuse(forward, "forward_kernel", ROOM, lambda c: c.resident)
    for _ in range(2):
        assert_same(step(core, training=False), expected)
    assert "weights streamed" in explain(CORE, [3], 2).plan
    streamed = refuse(forward, "forward_kernel", ROOM)
    for _ in range(2):
        assert_same(step(core, training=False), expected)
    assert "layer by layer" in explain(CORE, [3], 2).plan
    layered = refuse(layered_rows, "residual_kernel", ROOM)
    for _ in range(2):
        assert_same(step(core, training=False), expected)
    assert explain(CORE, [3], 2).backend == "reference"
    assert resident.refused == streamed.refused == layered.refused == 1
    said = warnings_of(caplog)
    assert len(said) == 3
    assert "weights streamed), because others did not start: fused ieee kernels (forward" in said[0]
    assert "by ieee kernels layer by layer (forward), because others" in said[1]
    assert said[2].startswith("calls run on backend 'reference', because of ")
    assert said[2].count("OutOfResources: out of resource: shared memory, Required: 300000") == 3
    with use_backend("triton"), pytest.raises(BackendError, match=r"on cpu \(fused ieee kernels"):
        step(core, training=False)


def test_a_backward_of_its_own(
    refuse: Callable[..., Kernel], caplog: pytest.LogCaptureFixture
) -> None:
    core, expected = core_and_expected()
    tiles = refuse(backward, "backward_kernel", ROOM)
    for _ in range(2):  # by name, too: both plans are Triton's
        with use_backend("triton"):
            assert_same(step(core), expected)
    assert tiles.refused == 1
    (said,) = warnings_of(caplog)
    assert "by ieee kernels layer by layer (backward), because others did not start" in said
    # The layered one does not start either: the reference goes on from what Triton's forward kept.
    layered = refuse(layered_rows, "residual_backward_kernel", ROOM)
    for _ in range(2):
        assert_same(step(core), expected)
    assert layered.refused == 1
    assert len(warnings_of(caplog)) == 2


def test_a_forward_that_does_not_start_and_a_backward_that_does(
    refuse: Callable[..., Kernel],
) -> None:
    core, expected = core_and_expected()
    refuse(forward, "forward_kernel", ROOM)
    refuse(layered_rows, "residual_kernel", ROOM)
    backwards = refuse(backward, "backward_kernel", ROOM, lambda _: False)
    assert_same(step(core), expected)
    assert backwards.refused == 0


def test_a_plan_that_was_not_made_is_not_handed_over(refuse: Callable[..., Kernel]) -> None:
    """Forward goes on layer by layer; backward must not read tiles that nobody wrote down."""
    core, expected = core_and_expected()
    tiles = refuse(prepare, "prepare_kernel", ROOM)
    tiles.where = lambda _: tiles.refused == 0
    assert_same(step(core), expected)
    assert tiles.refused == 1


def test_a_card_that_the_compiler_does_not_know(
    refuse: Callable[..., Kernel], caplog: pytest.LogCaptureFixture
) -> None:
    core, expected = core_and_expected()
    tiles = refuse(forward, "forward_kernel", UNKNOWN)
    layered = refuse(layered_rows, "residual_kernel", UNKNOWN)
    ranks = refuse(catalogue, "ranks_kernel", UNKNOWN)
    assert_same(step(core), expected)
    queries, items, targets = torch.randn(2, 16), torch.randn(9, 16), torch.tensor([1, 2])
    with use_backend("reference"):
        right = catalogue_ranks(queries, items, targets)
    assert torch.equal(catalogue_ranks(queries, items, targets), right)
    assert (tiles.refused, layered.refused, ranks.refused) == (1, 0, 0)
    (said,) = warnings_of(caplog)
    assert "take a version of the driver, and of Triton or the CUDA kernels, that knows" in said


def test_weights_that_were_asked_for(refuse: Callable[..., Kernel]) -> None:
    core, _ = core_and_expected(training=False)
    refuse(forward, "forward_kernel", ROOM, lambda c: c.resident)
    with use_weights("resident"), pytest.raises(BackendError, match="weights resident"):
        step(core, training=False)


def test_what_is_raised_as_it_is(refuse: Callable[..., Kernel]) -> None:
    core, expected = core_and_expected()
    error = torch.OutOfMemoryError("CUDA out of memory")
    kernel = refuse(forward, "forward_kernel", error)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError) as raised:
            step(core)
        assert raised.value is error
    kernel.where = lambda _: False
    assert_same(step(core), expected)
