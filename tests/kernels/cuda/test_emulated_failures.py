"""CUDA kernels that a card does not start, planted on the emulator: another backend runs the call."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lares_kernels import BackendError, CoreConfig, RecurrentCore, explain, use_backend
from lares_kernels.binding import cuda_library as library
from lares_kernels.binding import structs
from lares_kernels.cuda.device import PRECISIONS
from lares_kernels.registry import backends, plan_failures
from lares_kernels.spec.choices import Activation, Adapter, StateMode

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")
CORE = CoreConfig(32, 2, 64, 1, dropout=0.5)
UNKNOWN = "no kernel image is available for execution on the device"
ROOM = "too many resources requested for launch"


@pytest.fixture(autouse=True)
def automatic(emulator: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CUDA kernels are the ones to choose, as in a new process."""
    monkeypatch.setattr(backends.REFINE.backends["cpu"], "automatic", False)
    monkeypatch.setattr(backends.REFINE.backends["cuda"], "automatic", True)
    plan_failures.forget()
    backends._logged.clear()
    yield
    plan_failures.forget()


class Driver:
    """Runs the library, but for functions that it refuses."""

    def __init__(self, said: str, *refused: str) -> None:
        self.said, self.refused, self.asked = said, refused, list[str]()
        self.run = library.run

    def __call__(self, function: str, call: Any) -> None:
        if function in self.refused:
            self.asked.append(function)
            raise BackendError(f"the CUDA kernels did not start: {self.said}")
        self.run(function, call)


def step(core: RecurrentCore) -> list[Tensor]:
    """Last states and gradients of sequences with depths of their own."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 5, 32, generator=generator).requires_grad_()
    options = {"num_steps": torch.tensor([1, 3, 2]), "seed": 7, "precision": "fp16"}
    last = core(hidden, lengths=torch.tensor([2, 5, 3]), **options).last
    return [last.detach(), *torch.autograd.grad(last.square().sum(), [hidden, *core.parameters()])]


def core_and_expected() -> tuple[RecurrentCore, list[Tensor]]:
    torch.manual_seed(1)
    core = RecurrentCore(CORE).train()
    with use_backend("reference"):
        return core, step(core)


def assert_near(found: list[Tensor], expected: list[Tensor]) -> None:
    least = 1e-2 * max(float(each.norm()) for each in expected)
    for mine, right in zip(found, expected, strict=True):
        assert float((mine - right).norm()) <= 1e-2 * max(float(right.norm()), least)


@pytest.mark.parametrize("said", [UNKNOWN, ROOM])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_another_backend_runs_the_call(
    kernel: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core, expected = core_and_expected()
    assert explain(CORE, [5], 2, precision="fp16").backend == "cuda"
    driver = Driver(said, f"lares_cuda_{kernel}")
    monkeypatch.setattr(library, "run", driver)
    for _ in range(2):
        assert_near(step(core), expected)
    assert len(driver.asked) == 1
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    # Before that, others say why they do not serve what no emulator runs.
    (told,) = [text for text in warned if said in text]
    assert f"the CUDA kernels ({kernel}, width 32, float16): " in told
    with use_backend("cuda"), pytest.raises(BackendError, match=f"on cpu .*{said}.*to use them"):
        step(core)
    assert len(driver.asked) == 1


def test_faults_are_raised_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    core, expected = core_and_expected()
    for said in ("out of memory", "an illegal memory access was encountered"):
        with monkeypatch.context() as patched:
            patched.setattr(library, "run", Driver(said, "lares_cuda_forward"))
            with pytest.raises(BackendError, match=f"^the CUDA kernels did not start: {said}"):
                step(core)
    assert_near(step(core), expected)


def test_sequences_too_long_for_a_tile() -> None:
    core, _ = core_and_expected()
    hidden = torch.randn(1, 200, 32)
    with use_backend("reference"):
        expected = core(hidden, seed=1, precision="fp16").last
    torch.testing.assert_close(core(hidden, seed=1, precision="fp16").last, expected)
    with use_backend("cuda"), pytest.raises(BackendError, match="sequences of up to 200 tokens"):
        core(hidden, seed=1, precision="fp16")


@pytest.mark.parametrize(
    ("function", "split_parts", "said"),
    [
        ("lares_cuda_forward", 0, "weights that are resident are not staged"),
        ("lares_cuda_forward", 1, "weights of the low-latency plan are not staged"),
        ("lares_cuda_backward", 0, "weights that are resident are not staged"),
    ],
)
def test_weights_that_no_kernel_stages(function: str, split_parts: int, said: str) -> None:
    shape = {"d_model": 32, "head_tiles": 1, "resident": 1, "staged": 1, "planned": 1}
    shape["precision"] = PRECISIONS[torch.bfloat16]
    call = structs.LaresCudaCall(abi=structs.LARES_CUDA_ABI, split_parts=split_parts, **shape)
    with pytest.raises(BackendError, match=said):
        library.run(function, call)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adapter", len(Adapter)),
        ("activation", len(Activation)),
        ("state_mode", len(StateMode)),
    ],
)
def test_a_choice_that_no_kernel_has(field: str, value: int) -> None:
    for function in ("lares_cuda_forward", "lares_cuda_backward"):
        call = structs.LaresCudaCall(abi=structs.LARES_CUDA_ABI, **{field: value})
        with pytest.raises(BackendError, match=f"no kernel has this {field.replace('_', ' ')}"):
            library.run(function, call)


@pytest.mark.parametrize("grown", range(5))
def test_a_library_that_was_not_built_since_a_struct_grew(
    grown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is ours: it would read past the end of what it is given."""
    ours = [*library._STRUCTS]
    more = {"_fields_": [("more", ctypes.c_int64)]}
    ours[grown] = type("Grown", (ours[grown],), more)
    monkeypatch.setattr(library, "_STRUCTS", tuple(ours))
    library.load.cache_clear()
    found = library.load()
    assert found == "libemulator.so is of another version: run `pip install -e .` again"
