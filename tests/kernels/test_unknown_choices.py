"""Triton's kernels of a choice that they have never heard of: none is compiled, whichever it is."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from triton.compiler import CompilationError

from benchmarks.gpu import triton_aot
from benchmarks.gpu.triton_aot import TARGETS
from lares_kernels import CoreConfig
from lares_kernels.triton.launch.constants import constants
from lares_kernels.triton.launch.settings import settings
from lares_kernels.triton.layered.call import FLAT_BLOCK
from lares_kernels.triton.layered.kernels import rows as layered_rows
from tests.kernels.test_layered_compiled import check

UNKNOWN = 99


def refusal(compiling: Any) -> str:
    """Return what the compiler says, with what it says of the functions that were called."""
    with pytest.raises(CompilationError) as found:
        compiling()
    error: BaseException | None = found.value
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("kernel", ["forward", "backward"])
@pytest.mark.parametrize("choice", ["adapter", "activation", "norm", "mixer"])
def test_of_the_fused_plan(choice: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*of: Any) -> Any:
        return replace(constants(*of), **{choice: UNKNOWN})

    rule = next(r for r in settings("sm80") if r.kernel == kernel and r.precision == "half")
    monkeypatch.setattr(triton_aot, "constants", unknown)
    config = CoreConfig(n_layers=1)
    said = refusal(
        lambda: triton_aot.resources_of_rule(rule, TARGETS["sm80"], config, dropout=False)
    )
    assert f"no kernel has this {choice}" in said


@pytest.mark.parametrize(
    ("kernel", "choice", "values"),
    [
        (layered_rows.adapt_kernel, "adapter", {}),
        (layered_rows.adapt_backward_kernel, "adapter", {}),
        (layered_rows.activate_kernel, "activation", {"BLOCK": FLAT_BLOCK, "g_out": None}),
        (layered_rows.activate_kernel, "activation", {"BLOCK": FLAT_BLOCK}),
    ],
    ids=["adapter", "adapter backward", "activation", "activation backward"],
)
def test_of_the_layered_plan(kernel: Any, choice: str, values: dict[str, Any]) -> None:
    c = replace(constants(CoreConfig(), 16, False, "half"), **{choice: UNKNOWN})
    said = refusal(lambda: check(kernel, c, "half", "sm80", 4, **values))
    assert f"no kernel has this {choice}" in said
