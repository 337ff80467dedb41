"""What is remembered of compiled kernels: by content, and held to what compiling gives."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from benchmarks.gpu import triton_aot
from benchmarks.gpu.triton_aot import TARGETS, Resources, source_of
from lares_kernels import CoreConfig
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, compile_time, constants
from lares_kernels.triton.layered.kernels import rows
from tests.kernels import compiled

OPTIONS = {"num_warps": 4, **LAUNCH_OPTIONS}
TARGET = TARGETS["sm90"]


def source(width: int = 32) -> Any:
    c = constants(CoreConfig(d_model=width), 16, False, "half")
    types = dict.fromkeys(rows.join_kernel.arg_names, "*fp32") | {"n_rows": "i32"}
    return source_of(rows.join_kernel, types, {"C": compile_time(c)})


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "compiled.json"
    monkeypatch.setattr(compiled, "RECORD", path)
    monkeypatch.delenv("LARES_COMPILE_ANEW", raising=False)
    monkeypatch.delenv(compiled._WRITE_TO, raising=False)
    compiled.record.cache_clear()
    yield path
    compiled.record.cache_clear()


def test_a_kernel_is_known_by_all_that_it_is_compiled_from() -> None:
    key = compiled.key_of(source(), TARGET, OPTIONS)
    assert key == compiled.key_of(source(), TARGET, OPTIONS)
    others = [
        compiled.key_of(source(64), TARGET, OPTIONS),
        compiled.key_of(source(), TARGETS["sm80"], OPTIONS),
        compiled.key_of(source(), TARGET, {**OPTIONS, "num_warps": 8}),
    ]
    assert len({key, *others}) == 4


def test_what_is_not_known_is_compiled_and_what_is_known_is_not(
    remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compiled.resources_of(source(), TARGET, OPTIONS)
    assert found == triton_aot.resources_of(source(), TARGET, OPTIONS)
    key = compiled.key_of(source(), TARGET, OPTIONS)
    remembered.write_text(json.dumps({key: [1, 2, 3]}))
    compiled.record.cache_clear()
    monkeypatch.setattr(compiled, "is_compiled_anew", lambda key: False)
    assert compiled.resources_of(source(), TARGET, OPTIONS) == Resources(1, 2, 3)


def test_what_is_compiled_anew_must_be_as_it_was(
    remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = compiled.key_of(source(), TARGET, OPTIONS)
    remembered.write_text(json.dumps({key: [1, 2, 3]}))
    monkeypatch.setenv("LARES_COMPILE_ANEW", "1")
    with pytest.raises(AssertionError, match="join_kernel takes .* write it anew"):
        compiled.resources_of(source(), TARGET, OPTIONS)


def test_every_known_kernel_has_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LARES_COMPILE_ANEW", raising=False)
    monkeypatch.delenv(compiled._WRITE_TO, raising=False)
    days = [compiled.is_compiled_anew(f"{number:024x}") for number in range(32)]
    assert sum(days) == 2
