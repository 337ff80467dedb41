"""The Triton kernels' self-check under the interpreter, and wrong kernels that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from lares_kernels import BackendError, CoreConfig, use_backend
from lares_kernels.registry import backends, self_check
from lares_kernels.registry.backends import REFINE
from lares_kernels.spec.call import Request
from lares_kernels.spec.catalogue_call import CatalogueRequest
from lares_kernels.triton.kernels import elementwise

FUSED = CoreConfig(d_model=16, n_heads=2, d_ff=24, n_layers=1, activation="relu")
LAYERED = CoreConfig(d_model=72, n_heads=2, d_ff=24, n_layers=1, activation="relu")


@pytest.fixture(autouse=True)
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checks on, with a cache of their own."""
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    monkeypatch.setenv(self_check.VARIABLE, "1")
    for registry in (backends.REFINE, backends.CATALOGUE):
        registry.forget()
    yield
    for registry in (backends.REFINE, backends.CATALOGUE):
        registry.forget()


@triton.jit
def a_steep_relu(x, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    return tl.maximum(x, 0.0) * 1.001


@triton.jit
def a_relu_with_a_steep_slope(x, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    return tl.maximum(x, 0.0), tl.where(x > 0.0, 1.001, 0.0)


@pytest.mark.parametrize("config", [FUSED, LAYERED], ids=["fused", "layered"])
def test_good_kernels_pass(config: CoreConfig) -> None:
    with use_backend("triton"):
        assert REFINE.choose(Request(config, "cpu", torch.float32)).backend.name == "triton"
        request = CatalogueRequest(16, "cpu", torch.float32)
        assert backends.CATALOGUE.choose(request).backend.name == "triton"


@pytest.mark.parametrize("config", [FUSED, LAYERED], ids=["fused", "layered"])
@pytest.mark.parametrize(
    ("function", "wrong", "worst"),
    [
        ("activate", a_steep_relu, "trajectory"),
        ("activate_with_slope", a_relu_with_a_steep_slope, "gradient"),
    ],
)
def test_wrong_kernels_are_refused(
    config: CoreConfig, function: str, wrong: object, worst: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elementwise, function, wrong)
    with (
        use_backend("triton"),
        pytest.raises(BackendError, match="its self-check failed") as raised,
    ):
        REFINE.choose(Request(config, "cpu", torch.float32))
    assert worst in str(raised.value)
    assert "off by" in str(raised.value)
