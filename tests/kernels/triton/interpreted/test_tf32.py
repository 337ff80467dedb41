"""Products in tf32: what they read is rounded to the nearest, wherever they read it.

Tensor cores drop the bits that tf32 lacks, the interpreter multiplies whole float32. So every product
of every kernel is looked at here: it may be given nothing but numbers that tf32 has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

import lares_kernels as lk
from lares_kernels import CoreConfig, use_backend
from lares_kernels.triton import backend as triton_backend
from lares_kernels.triton.launch.rounding import round_to_tf32
from lares_kernels.triton.launch.settings import use_weights
from tests.kernels.catalogues import make_catalogue
from tests.kernels.problems import SMALL, exact_problem, outputs_and_gradients
from tests.kernels.triton.interpreted.test_layered import layered
from tests.kernels.triton.interpreted.test_mixers import BSAREC, FILTER

__all__ = ["layered"]
DROPPING = replace(SMALL, n_layers=1, dropout=0.5, attn_dropout=0.25, inner_dropout=0.25)
CORES = [
    replace(DROPPING, adapter="concat"),
    replace(DROPPING, norm="pre"),
    replace(DROPPING, norm="query"),
    FILTER,
    BSAREC,
]
LENGTHS = [1, 9, 4]
PLANS = pytest.mark.parametrize("plan", ["triton", "layered"])
OF_CORES = pytest.mark.parametrize("config", CORES, ids=lambda c: f"{c.mixer}-{c.norm}")


def nearest(x: Tensor) -> Tensor:
    """float32 rounded to eleven bits of mantissa by arithmetic, ties away from zero."""
    mantissa, exponent = torch.frexp(x.double())
    rounded = (mantissa.abs() * 2048 + 0.5).floor() / 2048 * mantissa.sign()
    return torch.where(x.isfinite(), torch.ldexp(rounded, exponent).float(), x)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """float32 products are in tf32; each is counted, and refused operands that were not rounded."""
    monkeypatch.setattr(triton_backend, "tf32_allowed", lambda: True)
    taken = [0]
    builder = interpreter.InterpreterBuilder
    multiply = builder.create_dot

    def look(self: Any, a: Any, b: Any, d: Any, input_precision: Any, *rest: Any) -> Any:
        assert "TF32" in str(input_precision)
        for side in (a, b):
            assert side.data.dtype == np.float32
            assert not (side.data.view(np.int32)[np.isfinite(side.data)] & 0x1FFF).any()
        taken[0] += 1
        return multiply(self, a, b, d, input_precision, *rest)

    monkeypatch.setattr(builder, "create_dot", look)
    yield taken
    assert taken[0] > 0


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 3.0e38, 3.4028234e38, float("inf"), float("-inf")]
TIES = [1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-23, 2 - 2**-12]


def test_to_the_nearest_with_ties_away_from_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(3000, generator=generator) * torch.logspace(-30, 30, 3000)
    x = torch.cat([torch.tensor([*SPECIAL, *TIES]), some])
    normal = (x.abs() >= 2**-126) | (x == 0)
    found = round_to_tf32(x.clone())
    assert torch.equal(found[normal], nearest(x)[normal])
    assert torch.equal(found.signbit(), x.signbit())
    assert (found[~normal] - x[~normal]).abs().max() <= 2**-137  # half of the last bit there is


def test_nan_stays_whatever_its_bits() -> None:
    bits = [0x7FFFFFFF, -1, 0x7F800001, 0x7FC00000, 0x7FFFF000, -0x7FFFFF]
    x = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    assert x.isnan().all()
    assert round_to_tf32(x).isnan().all()


@PLANS
@OF_CORES
def test_all_products_read_rounded_operands(
    config: CoreConfig, plan: str, products: list[int]
) -> None:
    core, hidden, lengths = exact_problem(config, LENGTHS)
    with use_backend(plan):
        outputs_and_gradients(core.float().train(), hidden.float(), lengths, num_steps=2)


def test_all_products_with_weights_on_the_chip(products: list[int]) -> None:
    core, hidden, lengths = exact_problem(CORES[0], LENGTHS)
    with use_backend("triton"), use_weights("resident"), torch.no_grad():
        core.float()(hidden.float(), lengths, num_steps=2)


@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_all_products_of_catalogues_read_rounded_operands(scores: str, products: list[int]) -> None:
    problem = make_catalogue(9, 70, 8, steps=2, n_excluded=3, scores=scores).to(torch.float32)
    assert problem.excluded is not None
    problem.excluded[:, 0] = 5
    problem = replace(problem, chosen=problem.chosen.masked_fill(problem.chosen == 5, 6))
    options = {"excluded": problem.excluded, "scores": scores}
    for value in (1.0, float("inf"), torch.finfo(torch.float32).max):  # in tf32 infinite
        problem.items[5] = value
        found = problem.results("triton")
        assert all(found[part].isfinite().all() for part in ("log_probability", "g_queries"))
        with use_backend("triton"):
            lk.catalogue_top_k(problem.queries[:, 0], problem.items, 10, **options)
            lk.catalogue_ranks(problem.queries[:, 0], problem.items, problem.chosen, **options)


class Rounded(TorchDispatchMode):
    """PyTorch's products of float32, their operands rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "addbmm", "baddbmm", "matmul", "dot", "mv", "addmv"):
            added = 1 if name.startswith(("add", "badd")) else 0
            args = (
                *args[:added],
                *(nearest(a) for a in args[added : added + 2]),
                *args[added + 2 :],
            )
        return func(*args, **(kwargs or {}))


@PLANS
@OF_CORES
def test_errors_keep_to_twice_those_of_rounding(
    config: CoreConfig, plan: str, products: list[int]
) -> None:
    core, hidden, lengths = exact_problem(config, [9, 4, 7, 9])
    with use_backend("equations"):
        exact = [*chain(*outputs_and_gradients(core, hidden, lengths, num_steps=2))]
        core.float()
        with Rounded():
            plain = [*chain(*outputs_and_gradients(core, hidden.float(), lengths, num_steps=2))]
    with use_backend(plan):
        found = [*chain(*outputs_and_gradients(core, hidden.float(), lengths, num_steps=2))]
    scale = max(float(wanted.detach().norm()) for wanted in exact)
    for mine, yardstick, wanted in zip(found, plain, exact, strict=True):
        error, allowed = (
            float((t.detach().double() - wanted.detach()).norm()) for t in (mine, yardstick)
        )
        assert error <= 2.0 * allowed + 1e-4 * scale
