"""What is remembered of compiled kernels: by content, and held to what compiling gives."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from benchmarks.gpu import triton_aot
from benchmarks.gpu.triton_aot import TARGETS, Resources, source_of
from lares_kernels import CoreConfig
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, compile_time, constants
from lares_kernels.triton.layered.kernels import rows
from tests.kernels import compiled_record
from tests.kernels.conftest import RecordOf
from tests.kernels.triton import compiled

OPTIONS = {"num_warps": 4, **LAUNCH_OPTIONS}
TARGET = TARGETS["sm90"]


def source(width: int = 32) -> Any:
    c = constants(CoreConfig(d_model=width), 16, False, "half")
    types = dict.fromkeys(rows.join_kernel.arg_names, "*fp32") | {"n_rows": "i32"}
    return source_of(rows.join_kernel, types, {"C": compile_time(c)})


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
    record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "RECORD", record_of({}))
    found = compiled.resources_of(source(), TARGET, OPTIONS)
    assert found == triton_aot.resources_of(source(), TARGET, OPTIONS)
    key = compiled.key_of(source(), TARGET, OPTIONS)
    monkeypatch.setattr(compiled, "RECORD", record_of({key: [1, 2, 3]}))
    monkeypatch.setattr(compiled_record, "is_compiled_anew", lambda key: False)
    assert compiled.resources_of(source(), TARGET, OPTIONS) == Resources(1, 2, 3)


def test_what_is_compiled_anew_must_be_as_it_was(
    record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = compiled.key_of(source(), TARGET, OPTIONS)
    monkeypatch.setattr(compiled, "RECORD", record_of({key: [1, 2, 3]}))
    monkeypatch.setenv("LARES_COMPILE_ANEW", "1")
    with pytest.raises(AssertionError, match="join_kernel takes .* write it anew"):
        compiled.resources_of(source(), TARGET, OPTIONS)
