"""Kernels are held to the reference before they are used; wrong ones, planted here, are refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lares_kernels import BackendError, CoreConfig, explain, refine
from lares_kernels.binding import cpu_library
from lares_kernels.common.verdicts import Verdict
from lares_kernels.registry import backends, self_check
from lares_kernels.registry.backends import REFINE
from lares_kernels.spec.call import Request
from lares_kernels.spec.catalogue_call import CatalogueRequest
from tests.kernels.tools import NEEDS_CPU_KERNEL, cpu_sets

sys.path.insert(0, str(Path(__file__).parents[3] / "csrc"))
import build

pytestmark = NEEDS_CPU_KERNEL
CORE = CoreConfig(d_model=16, n_heads=2, d_ff=24, n_layers=1)
REQUEST = Request(CORE, "cpu", torch.float32)


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Checks on, with a cache of their own; gives the folder of the verdicts."""
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(self_check.VARIABLE, "1")
    forget()
    yield tmp_path / "cache" / "self-check"
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Choose again, as a new process would."""
    backends.REFINE.forget()
    backends.CATALOGUE.forget()
    backends._logged.clear()


def test_a_good_kernel_is_checked_once(checks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REFINE.choose(REQUEST).backend.name == "cpu"
    (path,) = checks.iterdir()
    found = json.loads(path.read_text())
    assert found["identity"]["products"] == "fp32"
    errors, bounds = found["verdict"]["errors"], found["verdict"]["bounds"]
    assert 0 < errors["up_weight's gradient"] < bounds["up_weight's gradient"] == 1e-4
    monkeypatch.setattr(self_check, "check_refine", None)  # would raise if it were called
    forget()
    assert REFINE.choose(REQUEST).backend.name == "cpu"


def damaged(whole: str) -> dict[str, str]:
    """Return texts that are no whole verdict, but each in one way, from one that is."""
    part = "up_weight's gradient"

    def with_fields(**fields: object) -> str:
        found = json.loads(whole)
        return json.dumps({**found, "verdict": {**found["verdict"], **fields}})

    def with_part(field: str, value: object) -> str:
        return with_fields(**{field: {**json.loads(whole)["verdict"][field], part: value}})

    without = json.loads(whole)
    del without["verdict"]["bounds"][part], without["verdict"]["errors"][part]
    missing = json.loads(whole)
    del missing["verdict"]["seconds"]
    return {
        "empty": "",
        "cut": whole[:40],
        "another identity": whole.replace('"cpu"', '"gpu"'),
        "a list": "[]",
        "null": "null",
        "deep": "[" * 100_000,
        "deep inside": whole.replace('"seconds": ', '"seconds": ' + "[" * 100_000),
        "no verdict": json.dumps({**json.loads(whole), "verdict": None}),
        "a field too many": with_fields(more=1),
        "a field too few": json.dumps(missing),
        "no errors": with_fields(errors={}),
        "no errors and bounds": with_fields(errors={}, bounds={}),
        "errors null": with_fields(errors=None),
        "errors a list": with_fields(errors=[1.0]),
        "an error null": with_part("errors", None),
        "an error in words": with_part("errors", "0.0"),
        "an error true": with_part("errors", True),
        "an error below zero": with_part("errors", -1.0),
        "an error within bounds of its own": with_fields(errors={part: 0.5}, bounds={part: 1.0}),
        "a wider bound": with_part("bounds", 1.0),
        "a bound null": with_part("bounds", None),
        "bounds null": with_fields(bounds=None),
        "a part too few": json.dumps(without),
        "seconds in words": with_fields(seconds="many"),
        "a kernel of numbers": with_fields(kernel=[1]),
        "raised": with_fields(raised="ValueError: no"),
        "raised null": with_fields(raised=None),
    }


def test_a_damaged_verdict_is_made_anew(checks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    REFINE.choose(REQUEST)
    (path,) = checks.iterdir()
    whole = path.read_text()
    fresh = Verdict(**json.loads(whole)["verdict"])
    checked = []
    monkeypatch.setattr(self_check, "check_refine", lambda *_: checked.append(1) or fresh)
    for kind, text in damaged(whole).items():
        path.write_text(text)
        forget()
        checked.clear()
        assert REFINE.choose(REQUEST).backend.name == "cpu", kind
        assert checked, kind
        assert path.read_text() == whole, kind


def test_a_stored_verdict_that_fails_is_believed(checks: Path) -> None:
    REFINE.choose(REQUEST)
    (path,) = checks.iterdir()
    for error in (float("nan"), float("inf"), 1e-3):
        found = json.loads(path.read_text())
        found["verdict"]["errors"]["up_weight's gradient"] = error
        path.write_text(json.dumps(found))
        forget()
        assert "up_weight's gradient off by" in REFINE.choose(REQUEST).passed_over["cpu"]


def test_a_cache_that_cannot_be_written(checks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = checks.parent.with_name("a-file")
    blocked.write_text("")
    monkeypatch.setenv("LARES_CACHE", str(blocked))
    assert REFINE.choose(REQUEST).backend.name == "cpu"


def sets_checked(folder: Path) -> set[str]:
    """Return the instruction sets of the stored verdicts."""
    identities = (json.loads(path.read_text())["identity"] for path in folder.glob("*.json"))
    return {identity["build"].split()[-1] for identity in identities}


PARAMETERS = {n: torch.zeros(shape) for n, shape in self_check.parameter_shapes(CORE).items()}
CALLS = {
    "refine": lambda: refine(CORE, PARAMETERS, torch.zeros(1, 2, 16), num_steps=2),
    "choose": lambda: REFINE.choose(REQUEST),
    "catalogue": lambda: backends.CATALOGUE.choose(CatalogueRequest(16, "cpu", torch.float32)),
    "explain": lambda: explain(CORE, [3, 1], 2),
}


@pytest.mark.parametrize("call", CALLS)
@torch.no_grad()
def test_every_instruction_set_is_checked(
    call: str, checks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        for isa in cpu_sets():
            with cpu_library.use_instruction_set(isa):
                CALLS[call]()
    assert sets_checked(checks) == set(cpu_sets())
    # What has been checked once is remembered whichever set is in use.
    monkeypatch.setattr(self_check, "identity_of", None)
    for isa in cpu_sets():
        with cpu_library.use_instruction_set(isa):
            CALLS[call]()


@pytest.mark.parametrize("call", CALLS)
@torch.no_grad()
def test_checks_may_be_turned_on_and_off(
    call: str, checks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(self_check.VARIABLE, "0")
    for _ in range(2):
        CALLS[call]()
    assert not checks.exists()
    monkeypatch.setenv(self_check.VARIABLE, "1")
    CALLS[call]()
    assert sets_checked(checks)
    monkeypatch.setenv(self_check.VARIABLE, "no")
    with pytest.raises(BackendError, match="LARES_SELF_CHECK is 'no'"):
        CALLS[call]()


@pytest.mark.usefixtures("checks")
def test_every_card_and_precision_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    current, capturing, precision = [0], [False], ["highest"]

    @contextlib.contextmanager
    def make_current(index: int) -> Iterator[None]:
        before, current[0] = current[0], index
        yield
        current[0] = before

    cuda = {
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: capturing[0],
        "current_device": lambda: current[0],
        "device": make_current,
    }
    for name, stand_in in cuda.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision[0])
    asked: list[tuple[int, str]] = []

    def why_not(*_: object) -> None:
        asked.append((current[0], precision[0]))

    monkeypatch.setattr(backends.Registry, "why_not", why_not)
    request = Request(CORE, "cuda", torch.float32)
    for call in (
        lambda index: REFINE.choose(request, index),
        lambda index: backends.CATALOGUE.choose(CatalogueRequest(16, "cuda", torch.float32), index),
    ):
        asked.clear()
        for index in (0, 1, None, 1, 0):
            call(index)
        assert asked == [(0, "highest"), (1, "highest")]
        assert current == [0]
        precision[0] = "high"
        call(1)
        call(1)
        assert asked[2:] == [(1, "high")]
        capturing[0] = True
        call(1)  # was chosen already
        call(2)
        call(2)  # nothing that was chosen without a check is kept
        assert asked[3:] == [(2, "high"), (2, "high")]
        capturing[0], precision[0] = False, "highest"


@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
@pytest.mark.parametrize(("mixer", "window"), [("attention", 0), ("filter", 7), ("bsarec", 30)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("checks")
def test_every_core_passes(
    adapter: str, mixer: str, window: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CoreConfig(64, 2, 256, 2, adapter=adapter, mixer=mixer, window=window)
    assert REFINE.choose(Request(config, "cpu", dtype)).backend.name == "cpu"
    monkeypatch.setattr(self_check, "check_refine", None)  # its verdict is read
    forget()
    assert REFINE.choose(Request(config, "cpu", dtype)).backend.name == "cpu"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [64, 128, 512])
def test_plain_products_in_16_bits_pass_at_every_width(width: int, dtype: torch.dtype) -> None:
    """They are a right kernel's yardstick, so they must be far from what is refused."""
    heads = width // 32
    config = CoreConfig(width, heads, 4 * width, 2, adapter="gate", dropout=0.5, attn_dropout=0.25)
    reference = backends.REFINE.named("reference")
    verdict = self_check.check_refine(reference, reference, Request(config, "cpu", dtype))
    assert max(verdict.errors[part] / verdict.bounds[part] for part in verdict.errors) < 0.5


@pytest.mark.parametrize("padding", ["left", "left-zeros"])
@pytest.mark.usefixtures("checks")
def test_every_padding_passes(padding: str) -> None:
    config = CoreConfig(16, 2, 24, 2, norm="query", padding=padding)
    assert REFINE.choose(Request(config, "cpu", torch.float32)).backend.name == "cpu"
    assert explain(config, [3, 1], 2).backend == "cpu"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 16, 64])
@pytest.mark.usefixtures("checks")
def test_the_catalogue_passes(
    width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backends.CATALOGUE.choose(CatalogueRequest(width, "cpu", dtype)).backend.name == "cpu"
    monkeypatch.setattr(self_check, "check_catalogue", None)  # its verdict is read
    forget()
    assert backends.CATALOGUE.choose(CatalogueRequest(width, "cpu", dtype)).backend.name == "cpu"


@pytest.mark.usefixtures("checks")
def test_checks_leave_the_callers_modes_alone() -> None:
    compiled = torch.compile(
        lambda h, p: refine(CORE, p, h, lengths=[3, 2], num_steps=2).last, backend="eager"
    )
    parameters = {
        name: torch.randn(shape) / 4 for name, shape in self_check.parameter_shapes(CORE).items()
    }
    hidden = torch.randn(2, 3, 16)
    before = torch.get_rng_state()
    with torch.inference_mode():
        first = refine(CORE, parameters, hidden, lengths=[3, 2], num_steps=2).last
    forget()
    with torch.autocast("cpu", torch.bfloat16):
        refine(CORE, parameters, hidden, lengths=[3, 2], num_steps=2)
    forget()
    torch.testing.assert_close(compiled(hidden, parameters), first)
    assert torch.equal(before, torch.get_rng_state())


def test_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(self_check.VARIABLE, "no")
    with pytest.raises(BackendError, match="LARES_SELF_CHECK is 'no'; it takes 0"):
        self_check.is_on()


def test_what_is_not_finite_fails() -> None:
    for error in (float("nan"), float("inf"), 2e-5):
        assert Verdict("k", "d", {"x": error}, {"x": 1e-5}, 0.0).failed
    assert not Verdict("k", "d", {"x": 1e-5}, {"x": 1e-5}, 0.0).failed
    assert Verdict("k", "d", {}, {}, 0.0, raised="ValueError: no").failed
    assert Verdict("k", "d", {}, {}, 0.0).failed  # nothing was compared


# --- wrong kernels: the sources with one number changed, compiled.

# Name, file, what stands there and what is to stand there instead.
PLANTS = {
    "a steep slope": ("activations.hpp", "0.3989422804f", "0.41f"),
    "a weak exponential": ("math.hpp", "0.49998897314071655f", "0.48f"),
}


def planted(name: str, folder: Path) -> Path:
    """Compile a library of wrong kernels, of the baseline set alone and not optimised."""
    cxx = build.compiler()
    if build.processor(cxx) == "other":
        pytest.skip("compiled for known processors")
    file, right, wrong = PLANTS[name]
    shutil.copytree(build.HERE, folder / "csrc", ignore=shutil.ignore_patterns("cuda"))
    source = folder / "csrc" / "cpu" / "per_isa" / file
    text = source.read_text()
    assert right in text
    source.write_text(text.replace(right, wrong))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LARES_CPU_SETS", [*build.SETS[build.processor(cxx)]][-1])
        patched.setattr(build, "FLAGS", build.FLAGS.replace("-O3", "-O0"))
        patched.setattr(build, "SOURCES", folder / "csrc" / "cpu")
        build.build_cpu(folder / "liblares_cpu.so", folder / "build")
    return folder / "liblares_cpu.so"


USES = """
import logging, sys, torch
logging.basicConfig(format="%(message)s")
from lares_kernels import CoreConfig, RecurrentCore, catalogue_top_k, explain, use_backend
from lares_kernels.binding import cpu_library
cpu_library.LIBRARY = type(cpu_library.LIBRARY)(sys.argv[1])
core = RecurrentCore(CoreConfig(16, 2, 24, 1))
for length in (3, 4):
    core(torch.randn(1, length, 16), num_steps=2)
print(explain(core.config, [3], 2))
ids = catalogue_top_k(torch.randn(2, 16), torch.randn(9, 16), 3)
with use_backend("cpu"):
    core(torch.randn(1, 3, 16), num_steps=2)
"""


@pytest.mark.parametrize("name", PLANTS)
def test_a_wrong_kernel_is_refused(name: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        self_check.VARIABLE: "1",
        "LARES_CACHE": str(tmp_path),
        cpu_library.ISA_VARIABLE: "",
    }
    command = [sys.executable, "-c", USES, planted(name, tmp_path / "planted")]
    for _ in range(2):  # the second process reads the verdict
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        said = done.stderr.splitlines()
        warned = [line for line in said if line.startswith("calls run on backend 'reference'")]
        assert len(set(warned)) == len(warned) >= 1  # of the core's, perhaps of the catalogue's
        warning = warned[0]
        assert "cpu: its self-check failed on" in warning
        assert "off by" in warning
        assert "lares doctor --check" in warning
        assert done.stdout.startswith("reference: "), done.stdout
        assert said[-1].startswith(
            "lares_kernels.spec.errors.BackendError: backend 'cpu', asked for by"
        )
    environment[self_check.VARIABLE] = "0"
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "self-check" not in done.stderr
