"""Whether float32 products may round their operands to tf32: every way in which torch can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks.core.clock import products
from lares_kernels.common.devices import tf32_allowed
from lares_kernels.registry.circumstances import circumstances
from lares_kernels.registry.self_check import precision_name
from lares_kernels.triton.backend import precision_of


def newer(owner: object, value: str) -> Callable[[], None]:
    return lambda: setattr(owner, "fp32_precision", value)


def legacy(value: str) -> Callable[[], None]:
    return lambda: torch.set_float32_matmul_precision(value)


MATMUL, ALL = torch.backends.cuda.matmul, torch.backends
WAYS: list[tuple[str, Callable[[], None], bool]] = [
    ("nobody said", lambda: None, False),
    ("high", legacy("high"), True),
    ("medium", legacy("medium"), True),
    ("highest", legacy("highest"), False),
    ("allow_tf32", lambda: setattr(MATMUL, "allow_tf32", True), True),
]
if hasattr(ALL, "fp32_precision"):  # of torch 2.9 and later
    WAYS += [
        ("matmul tf32", newer(MATMUL, "tf32"), True),
        ("matmul ieee", newer(MATMUL, "ieee"), False),
        ("all tf32", newer(ALL, "tf32"), True),
        ("all ieee", newer(ALL, "ieee"), False),
    ]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for owner in (MATMUL, ALL):
        if hasattr(owner, "fp32_precision"):
            owner.fp32_precision = "none"


@pytest.mark.parametrize(("way", "allowed"), [way[1:] for way in WAYS], ids=[w[0] for w in WAYS])
def test_what_torch_was_told(way: Callable[[], None], allowed: bool) -> None:
    way()
    assert tf32_allowed() is allowed
    assert circumstances("cuda", 0)[-1] is allowed
    assert precision_name("cuda", torch.float32) == ("tf32" if allowed else "fp32")
    assert precision_of(torch.float32) == ("tf32" if allowed else "ieee")
    assert precision_of(torch.bfloat16) == "half"


@pytest.mark.parametrize(("way", "allowed"), [way[1:] for way in WAYS], ids=[w[0] for w in WAYS])
def test_benchmarks_choose_and_put_back(way: Callable[[], None], allowed: bool) -> None:
    way()
    for precision in ("tf32", "fp32"):
        with products(precision):
            assert tf32_allowed() is (precision == "tf32")
        assert tf32_allowed() is allowed
