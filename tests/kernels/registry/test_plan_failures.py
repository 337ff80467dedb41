"""Kernels that do not compile or start, planted here: the next plan or backend runs the call."""

from __future__ import annotations

import logging
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lares_kernels import (
    BackendError,
    CoreConfig,
    RecurrentCore,
    catalogue_top_k,
    explain,
    machine,
    use_backend,
)
from lares_kernels.common.verdicts import Verdict
from lares_kernels.reference.backend import ReferenceBackend
from lares_kernels.reference.catalogue import ReferenceCatalogue
from lares_kernels.registry import backends, plan_failures, self_check
from lares_kernels.registry.backends import REFINE
from lares_kernels.registry.plan_failures import Plan, cause_of, run_first
from lares_kernels.spec.call import Request
from lares_kernels.spec.errors import PlanFailure
from lares_kernels.spec.serves import ANY_WIDTH, ServesCores

CPU = torch.device("cpu")
CORE = CoreConfig(16, 2, 24, 1, dropout=0.5, attn_dropout=0.25)
ROOM = "Triton Error [CUDA]: too many resources requested for launch"
COMPILER = "Failed to find C compiler. Please specify via CC environment variable."


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process."""
    monkeypatch.setenv(self_check.VARIABLE, "0")
    monkeypatch.delenv(backends.ENVIRONMENT_VARIABLE, raising=False)

    def forget() -> None:
        plan_failures.forget()
        backends._logged.clear()
        backends.REFINE.forget()
        backends.CATALOGUE.forget()

    forget()
    yield
    forget()


class Planted(ReferenceBackend):
    """A backend of two plans, each of which may raise in forward and in backward."""

    name = "triton"
    starts_kernels = True
    serves = ServesCores(dict.fromkeys([torch.float32, torch.bfloat16], ANY_WIDTH))

    def __init__(self) -> None:
        self.raises: dict[str, Exception] = {}
        self.ran: list[str] = []

    def plans(self, kernel: str, call: Any, device: torch.device) -> list[Plan]:
        words = (f"fast {kernel}", f"slow {kernel}")
        return [Plan(self.name, each, device, (each, call.config.key)) for each in words]

    def plan(self, call: Any, device_type: str) -> str:
        return plan_failures.first_left(
            self.plans("forward", call, torch.device(device_type))
        ).words

    def _run(self, kernel: str, call: Any, hidden: Tensor, run: Callable[[], Any]) -> Any:
        def one(plan: Plan) -> Any:
            self.ran.append(plan.words)
            if plan.words in self.raises:
                raise self.raises[plan.words]
            return run()

        return run_first(self.plans(kernel, call, hidden.device), one)

    def forward(self, call: Any, given: Any) -> Any:
        return self._run(
            "forward", call, given.hidden, lambda: super(Planted, self).forward(call, given)
        )

    def backward(self, call: Any, given: Any) -> Any:
        return self._run(
            "backward", call, given.hidden, lambda: super(Planted, self).backward(call, given)
        )


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Stands where backend ``triton`` does, and is the first that is chosen."""
    backend = Planted()
    monkeypatch.setitem(backends.REFINE.backends, "triton", backend)
    monkeypatch.setattr(backends.REFINE.backends["cpu"], "automatic", False)
    return backend


def step(core: RecurrentCore, **options: Any) -> list[Tensor]:
    """Loss and gradients of a training step with depths of their own and a drawn state."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 5, 16, generator=generator).requires_grad_()
    depths = torch.tensor([1, 3, 2])
    out = core(
        hidden,
        lengths=torch.tensor([2, 5, 3]),
        num_steps=depths,
        seed=7,
        return_state=True,
        **options,
    )
    loss = out.last.square().sum() + out.state.sum()
    return [loss.detach(), *torch.autograd.grad(loss, [hidden, *core.parameters()])]


def core_of(config: CoreConfig = CORE) -> RecurrentCore:
    torch.manual_seed(1)
    return RecurrentCore(config).train()


def core_and_step() -> tuple[RecurrentCore, list[Tensor]]:
    """A core, and what a step of it is by the reference."""
    core = core_of()
    with use_backend("reference"):
        return core, step(core)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, right in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-6)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_the_next_plan_runs_and_says_so_once(
    planted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    core, expected = core_and_step()
    planted.raises = {"fast forward": RuntimeError(ROOM), "fast backward": RuntimeError(ROOM)}
    for _ in range(3):
        assert_same(step(core), expected)
    # What failed is not tried again.
    assert planted.ran.count("fast forward") == planted.ran.count("fast backward") == 1
    assert planted.ran.count("slow forward") == planted.ran.count("slow backward") == 3
    said = warnings_of(caplog)
    assert len(said) == 2
    assert said[0] == (
        "backend 'triton' runs calls on cpu by slow forward, because others did not start: fast "
        f"forward ({ROOM}); to use them, a card that gives a program more shared memory and "
        "registers runs it"
    )
    assert explain(CORE, [3], 2).plan == "slow forward"


@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_the_reference_runs_what_no_plan_does(
    kernel: str, planted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    core, expected = core_and_step()
    planted.raises = {f"{plan} {kernel}": RuntimeError(ROOM) for plan in ("fast", "slow")}
    for _ in range(2):
        assert_same(step(core), expected)
    assert planted.ran.count(f"fast {kernel}") == planted.ran.count(f"slow {kernel}") == 1
    (said,) = warnings_of(caplog)
    assert said.startswith(
        "calls run on backend 'reference', because of triton: its kernels do not "
    )
    assert f"on cpu (fast {kernel}: {ROOM}; slow {kernel}: {ROOM})" in said
    assert "to use them, a card that gives a program more" in said
    explained = explain(CORE, [3], 2)
    assert explained.backend == ("reference" if kernel == "forward" else "triton")
    assert ("triton" in explained.passed_over) == (kernel == "forward")


def test_what_the_machine_lacks_is_tried_once_for_all_cores(
    planted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    planted.raises = {"fast forward": RuntimeError(COMPILER)}
    for layers in (1, 2):
        step(core_of(CoreConfig(16, 2, 24, layers)))
    assert planted.ran == ["fast forward"]
    (said,) = warnings_of(caplog)
    assert "install a C compiler (gcc or clang) or name one in CC" in said


@pytest.mark.parametrize("source", ["use_backend", "LARES_BACKEND"])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_asked_for_by_name_it_raises(
    kernel: str, source: str, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.raises = {f"{plan} {kernel}": RuntimeError(ROOM) for plan in ("fast", "slow")}
    if source == "LARES_BACKEND":
        monkeypatch.setenv(source, "triton")
    said = rf"on cpu \(fast {kernel}: Triton Error .*; slow {kernel}: .*\); to use them, a card"
    core = core_of()
    for _ in range(2):
        with pytest.raises(BackendError, match=said):
            if source == "use_backend":
                with use_backend("triton"):
                    step(core)
            else:
                step(core)
    assert planted.ran.count(f"fast {kernel}") == 1


def test_what_is_not_about_starting_is_raised_as_it_is(planted: Planted) -> None:
    core = core_of()
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        BackendError("the CUDA kernels did not start: unspecified launch failure"),
        ValueError("lengths are wrong"),
        RuntimeError("invalid argument"),
        ImportError("a mistake of ours", name="lares_kernels.absent"),
        TimeoutError("a candidate took more than 30 s"),  # the caller's own limit, an OSError
    ):
        for kernel in ("forward", "backward"):
            planted.raises = {f"fast {kernel}": error}
            with pytest.raises(type(error)) as raised:
                step(core)
            assert raised.value is error
            planted.raises = {}
            planted.ran.clear()
            step(core)
            assert planted.ran == ["fast forward", "fast backward"]


def test_the_self_check_and_calls_know_one_another(
    planted: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(self_check.VARIABLE, "1")
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    monkeypatch.setattr(planted, "build", lambda _: "planted")
    monkeypatch.setattr(planted, "devices", ("cpu",))
    monkeypatch.setattr(planted, "any_size", False)
    request = Request(CORE, "cpu", torch.float32)
    planted.raises = {"fast forward": RuntimeError(ROOM)}
    assert REFINE.choose(request).backend.name == "triton"
    # Only the slow plan has been checked: no later process may take that for all.
    assert not [*tmp_path.rglob("*.json")]
    step(core_of())
    assert planted.ran.count("fast forward") == 1
    backends.REFINE.forget()
    planted.raises["slow backward"] = planted.raises["fast backward"] = RuntimeError(ROOM)
    found = REFINE.choose(request)
    assert found.backend.name == "reference"
    assert found.passed_over["triton"].startswith("its kernels do not start on cpu (fast backward")
    with (
        use_backend("triton"),
        pytest.raises(BackendError, match="cannot run this call: its kernels"),
    ):
        REFINE.choose(request)
    backends.REFINE.forget()
    plan_failures.forget()
    planted.raises = {"fast forward": torch.OutOfMemoryError("no room")}
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        REFINE.choose(request)
    planted.raises = {}
    assert REFINE.choose(request).backend.name == "triton"
    assert [*tmp_path.rglob("*.json")]
    assert len(warnings_of(caplog)) == 2


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiled_programs_find_the_way_too(compiler: str, planted: Planted) -> None:
    core, expected = core_and_step()
    compiled = torch.compile(core, backend=compiler, fullgraph=True)
    assert_same(step(compiled), expected)
    for kernel in ("backward", "forward"):
        planted.raises |= {f"{plan} {kernel}": RuntimeError(ROOM) for plan in ("fast", "slow")}
        assert_same(step(compiled), expected)


def test_programs_of_other_machines_find_the_way_too(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the backend that was chosen for them does not pass its check, too."""
    core, expected = core_and_step()
    compiled = torch.compile(core, backend="eager", fullgraph=True)
    assert_same(step(compiled), expected)
    monkeypatch.setenv(self_check.VARIABLE, "1")
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    monkeypatch.setattr(planted, "build", lambda _: "planted")
    monkeypatch.setattr(planted, "any_size", False)
    planted.raises = {f"{plan} forward": RuntimeError(ROOM) for plan in ("fast", "slow")}
    for _ in range(2):
        assert_same(step(compiled), expected)
    assert planted.ran.count("fast forward") == 2  # before, and in the check
    request = Request(CORE, "cpu", torch.float32)
    backends.REFINE.check_serves("auto:triton", request)
    with pytest.raises(BackendError, match="names backend 'nothing'"):
        backends.REFINE.check_serves("auto:nothing", request)


def test_gradients_of_float64_states(planted: Planted) -> None:
    """The reference's own states are float64 then; a kernel gives float32."""
    core = core_of().double()
    hidden = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)

    def results(**options: Any) -> list[Tensor]:
        out = core(hidden, num_steps=torch.tensor([1, 2]), seed=1, **options)
        return [out.last, *torch.autograd.grad(out.last.sum(), [hidden, *core.parameters()])]

    with use_backend("reference"):
        expected = results()
    planted.raises = {f"{plan} backward": RuntimeError(ROOM) for plan in ("fast", "slow")}
    for mine, right in zip(results(), expected, strict=True):
        assert mine.dtype == right.dtype
        assert float((mine - right).detach().norm()) <= 1e-5 * max(
            1.0, float(right.detach().norm())
        )


def test_the_doctor_says_what_does_not_start(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.raises = {"fast forward": RuntimeError(COMPILER)}
    monkeypatch.setattr(planted, "any_size", False)
    (row,) = machine._core("triton", "triton", "attention fp32", CORE, "cpu", torch.float32)
    assert isinstance(row.verdict, Verdict)
    assert row.verdict.failed
    assert "install a C compiler" in row.verdict.worst()


def test_a_catalogue_op_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    class PlantedCatalogue(ReferenceCatalogue):
        name = "triton"
        starts_kernels = True

        def top_k(self, call: Any, given: Any, k: int) -> Any:
            def fail(plan: Plan) -> Any:
                tried.append(plan)
                raise RuntimeError(ROOM)

            where = given.queries.device
            return run_first([Plan("triton", "top-k", where, ("top_k",))], fail)

    monkeypatch.setitem(backends.CATALOGUE.backends, "triton", PlantedCatalogue())
    monkeypatch.setattr(backends.CATALOGUE.backends["cpu"], "automatic", False)
    queries, items = torch.randn(2, 16), torch.randn(9, 16)
    with use_backend("reference"):
        expected = catalogue_top_k(queries, items, 3)
    for _ in range(2):
        assert torch.equal(catalogue_top_k(queries, items, 3).ids, expected.ids)
    assert len(tried) == 1
    assert len(warnings_of(caplog)) == 1
    with (
        use_backend("triton"),
        pytest.raises(BackendError, match="its kernels do not start on cpu"),
    ):
        catalogue_top_k(queries, items, 3)


# --- what counts as not starting


def test_what_cuda_says() -> None:
    for said, of_machine in (
        ("no kernel image is available for execution on the device", True),
        ("the provided PTX was compiled with an unsupported toolchain.", True),
        ("CUDA driver version is insufficient for CUDA runtime version", True),
        ("too many resources requested for launch", False),
        ("invalid argument", False),
        ("no kernel is compiled for this width", False),
    ):
        for before in ("the CUDA kernels did not start: ", "Triton Error [CUDA]: "):
            cause = cause_of(RuntimeError(before + said))
            assert cause is not None
            assert cause.of_machine == of_machine, said
        assert cause_of(RuntimeError(said)) is None
    assert cause_of(PlanFailure("told already")) is None
    assert cause_of(ValueError("Triton Error [CUDA]: invalid argument")) is None


def test_what_a_c_compiler_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CalledProcessError(1, ["/usr/bin/gcc", "main.c"])
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "C compiler that CC names" in cause_of(failed).remedy
    (tmp_path / "Python.h").unlink()
    assert "python3-dev" in cause_of(failed).remedy
    with pytest.raises(
        PlanFailure, match=r"plan: /usr/bin/gcc failed with status 1\); to use them"
    ):
        run_first([Plan("b", "plan", CPU, ())], lambda _: raises(failed))


def raises(error: Exception) -> None:
    raise error


def planned(run: Callable[[], Any]) -> str:
    """Return what a plan that is to run ``run`` is refused with."""
    with pytest.raises(PlanFailure) as raised:
        run_first([Plan("triton", "a plan", CPU, ("a plan",))], lambda _: run())
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_tritons_own_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    errors = pytest.importorskip("triton.runtime.errors")
    build = pytest.importorskip("triton.runtime.build")
    out = errors.OutOfResources(300_000, 232_448, "shared memory")
    assert "(a plan: OutOfResources: out of resource: shared memory, Required: 300000" in planned(
        lambda: raises(out)
    )
    plan_failures.forget()
    ptxas = errors.PTXASError(
        "Internal Triton PTX codegen error\n`ptxas` stderr:\n"
        "ptxas fatal   : Value 'sm_130a' is not defined for option 'gpu-name'\nRepro command: ..."
    )
    said = planned(lambda: raises(ptxas))
    assert "Value 'sm_130a' is not defined" in said
    assert "knows this card" in said
    assert cause_of(ptxas).of_machine
    interpreted = errors.InterpreterError("whatever")
    assert cause_of(interpreted) is None

    # What Triton really raises where there is no compiler.
    def compile_launcher() -> Any:
        return build.compile_module_from_src(src="int nothing;", name="nothing")

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    plan_failures.forget()
    assert "install a C compiler (gcc or clang) or name one in CC" in planned(compile_launcher)
    for name, content, remedy in (
        ("absent", None, "see that CC names a C compiler"),
        ("failing", "#!/bin/sh\nexit 1\n", "CC names works here"),
    ):
        compiler = tmp_path / name
        if content is not None:
            compiler.write_text(content)
            compiler.chmod(0o755)
        monkeypatch.setenv("CC", str(compiler))
        plan_failures.forget()
        find = getattr(build, "_find_compiler", None)
        if hasattr(find, "cache_clear"):
            find.cache_clear()
        said = planned(compile_launcher)
        assert remedy in said or (content is not None and "python3-dev" in said)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (12, 0)])
@pytest.mark.parametrize("number", [0, 1])
def test_triton_asks_the_cards_generation(
    number: int, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    triton_backend = pytest.importorskip("lares_kernels.triton.backend")
    monkeypatch.setattr(triton_backend, "_missing", lambda: None)
    monkeypatch.setattr(triton_backend, "interpreted", lambda: False)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: number != 0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: number)
    cards = {number: capability, 1 - number: (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", cards.__getitem__)
    said = f"cuda:{number} has compute capability 7.5; Triton compiles for 8.0 and later"
    expected = said if capability < (8, 0) else None
    assert triton_backend.TritonBackend().availability() == expected
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert triton_backend.TritonBackend().availability() is None
