"""The catalogue ops' errors, and their operators under PyTorch's own machinery."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lares_kernels as lk
from tests.kernels.catalogues import make_catalogue
from tests.kernels.test_catalogue import BACKENDS, backends


def call(op: str, **changes: Any) -> Any:
    problem = make_catalogue(4, 50, 8).to(torch.float32)
    arguments: dict[str, Any] = {
        "queries": problem.queries[:, 0],
        "items": problem.items,
        "targets": problem.chosen,
        "k": 3,
        **changes,
    }
    queries, items, targets, k = (arguments.pop(n) for n in ("queries", "items", "targets", "k"))
    if op == "top_k":
        return lk.catalogue_top_k(queries, items, k, **arguments)
    return getattr(lk, f"catalogue_{op}")(queries, items, targets, **arguments)


OPS = ("cross_entropy", "log_probability", "ranks", "top_k")


@backends
@pytest.mark.parametrize("op", OPS[:3])
def test_a_target_that_its_row_excludes(op: str, backend: str) -> None:
    targets = make_catalogue(4, 50, 8).chosen
    excluded = torch.full((4, 3), -1)
    excluded[2, 1] = targets[2]
    with (
        lk.use_backend(backend),
        pytest.raises(ValueError, match=r"of row 2 is \d+, which the row"),
    ):
        call(op, excluded=excluded)


@backends
@pytest.mark.parametrize("wrong", [-1, 50])
def test_ids_outside_the_catalogue(wrong: int, backend: str) -> None:
    with lk.use_backend(backend):
        for op in OPS[:3]:
            with pytest.raises(ValueError, match=rf"of row 1 is {wrong}; it must be in 0\.\.49"):
                call(op, targets=torch.tensor([0, wrong, 2, 3]))
        for op in OPS:
            excluded = torch.tensor([[0], [1], [2], [50 if wrong > 0 else -2]])
            with pytest.raises(ValueError, match=r"excluded\[3, 0\] is (50|-2)"):
                call(op, excluded=excluded, targets=torch.tensor([5, 6, 7, 8]))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"scores": "cos"}, ValueError, "scores is 'cos'; it must be one of dot, cosine"),
        ({"temperature": 0.0}, ValueError, r"temperature is 0\.0"),
        ({"temperature": float("nan")}, ValueError, "temperature is nan"),
        ({"temperature": True}, TypeError, "temperature is True"),
        ({"temperature": np.True_}, TypeError, "temperature is "),
        (
            {"items": torch.randn(50, 7)},
            ValueError,
            r"queries has shape \(4, 8\); it must be \(\.\.\., 7",
        ),
        ({"items": torch.empty(0, 8)}, ValueError, r"items has shape \(0, 8\)"),
        ({"items": torch.ones(50, 8, dtype=torch.int64)}, TypeError, "items is torch.int64"),
        (
            {"excluded": torch.zeros(3, 2, dtype=torch.int64)},
            ValueError,
            "excluded must hold whole",
        ),
        ({"excluded": torch.zeros(4, 2)}, ValueError, "excluded must hold whole numbers"),
        ({"excluded": torch.zeros(4, dtype=torch.int64)}, ValueError, r"must be \(4, H\)"),
        ({"precision": "fp8"}, ValueError, "precision is 'fp8'"),
        ({"precision": "fp64"}, ValueError, "precision is 'fp64', but queries are torch.float32"),
    ],
)
@pytest.mark.parametrize("op", OPS)
def test_arguments_that_do_not_fit(op: str, changes: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        call(op, **changes)


@backends
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_a_temperature_that_learns(scores: str, backend: str) -> None:
    """A tensor of one number gets the gradient that the equations have."""
    problem = make_catalogue(5, 40, 8, n_excluded=3).to(torch.float32)
    found = []
    for name, dtype in ((backend, torch.float32), ("equations", torch.float64)):
        queries, items = problem.queries[:, 0].to(dtype), problem.items.to(dtype)
        inputs = [
            t.clone().requires_grad_() for t in (queries, items, torch.tensor(0.7, dtype=dtype))
        ]
        if name == "equations":  # as plain PyTorch, which scores as a matrix
            q, e = inputs[:2]
            if scores == "cosine":
                q, e = (torch.nn.functional.normalize(t, dim=-1) for t in (q, e))
            hidden = torch.zeros(5, 41, dtype=torch.bool).scatter(1, problem.excluded % 41, True)
            logits = (q @ e.mT / inputs[2]).masked_fill(hidden[:, :40], float("-inf"))
            loss = torch.nn.functional.cross_entropy(logits, problem.chosen)
        else:
            with lk.use_backend(backend):
                loss = lk.catalogue_cross_entropy(
                    inputs[0],
                    inputs[1],
                    problem.chosen,
                    scores=scores,
                    temperature=inputs[2],
                    excluded=problem.excluded,
                )
        found.append([loss, *torch.autograd.grad(loss, inputs)])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-4, atol=1e-5)
    assert float(found[0][3].abs()) > 1e-3


@backends
@pytest.mark.parametrize("op", OPS)
def test_a_temperature_is_a_number_or_a_tensor_of_one(op: str, backend: str) -> None:
    with lk.use_backend(backend):
        wanted = call(op, temperature=0.25, scores="cosine")
        for temperature in (torch.tensor(0.25), torch.tensor([0.25]), torch.tensor(0.25).double()):
            found = call(op, temperature=temperature, scores="cosine")
            for mine, exact in zip(_all(found), _all(wanted), strict=True):
                torch.testing.assert_close(mine, exact, rtol=1e-4, atol=1e-5)
        for wrong, message in (
            (torch.tensor([0.5, 0.5]), r"temperature has shape \(2,\)"),
            (torch.tensor(1), "of torch.int64"),
            (torch.tensor(-1.0), "temperature is -1.0"),
            (torch.tensor(float("nan")), "temperature is nan"),
            ("1", "temperature is '1'"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                call(op, temperature=wrong)


def _all(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


def test_a_temperature_that_learns_compiles() -> None:
    problem = make_catalogue(4, 50, 8).to(torch.float32)
    temperature = torch.tensor(0.5, requires_grad=True)

    def loss(temperature: Tensor) -> Tensor:
        return lk.catalogue_cross_entropy(
            problem.queries[:, 0], problem.items, problem.chosen, temperature=temperature
        )

    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    wanted = torch.autograd.grad(loss(temperature), [temperature])
    torch.testing.assert_close(torch.autograd.grad(compiled(temperature), [temperature]), wanted)


@pytest.mark.parametrize("op", OPS[:3])
def test_targets_that_do_not_fit(op: str) -> None:
    for targets in (torch.tensor([1, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0])):
        with pytest.raises(ValueError, match="whole numbers of shape"):
            call(op, targets=targets)


def test_options_of_single_ops() -> None:
    with pytest.raises(ValueError, match="reduction is 'max'"):
        call("cross_entropy", reduction="max")
    for k in (2.0, True, "3"):
        with pytest.raises(TypeError, match="k is .*; it must be a whole number"):
            call("top_k", k=k)
    for k in (0, 51):
        with pytest.raises(ValueError, match=rf"k is {k}; it must be in 1\.\.50"):
            call("top_k", k=k)
    steps = torch.randn(4, 2, 8)
    for op in ("cross_entropy", "ranks", "top_k"):
        with pytest.raises(ValueError, match=r"it must be \(R, d\)"):
            call(op, queries=steps)
    assert call("log_probability", queries=steps).shape == (4, 2)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="no CPU kernel")
def test_a_backend_that_cannot_serve() -> None:
    double = torch.randn(4, 8, dtype=torch.float64)
    with lk.use_backend("cpu"), pytest.raises(lk.BackendError, match="products in torch.float64"):
        call("ranks", queries=double)
    assert call("log_probability", queries=double).dtype == torch.float64  # the reference's


@backends
def test_opcheck(backend: str) -> None:
    problem = make_catalogue(4, 50, 8, n_excluded=3).to(torch.float32)
    tensors = (problem.queries[:, 0], problem.items, problem.chosen, problem.excluded)
    options = ("cosine", 0.5, backend, "fp32")
    checks = ("test_schema", "test_faketensor")
    operators = torch.ops.lares_kernels
    for wants_entropy in (False, True):
        arguments = (*tensors, *options, wants_entropy)
        torch.library.opcheck(
            operators.catalogue_log_probability.default, arguments, test_utils=checks
        )
    _, normaliser, _ = operators.catalogue_log_probability(*tensors, *options, False)
    for wanted in ((True, True), (False, True), (True, False)):
        arguments = (*tensors, *options, normaliser, torch.ones(4), *wanted)
        torch.library.opcheck(operators.catalogue_gradients.default, arguments, test_utils=checks)
    queries, items, _, excluded = tensors
    torch.library.opcheck(
        operators.catalogue_top_k.default,
        (queries, items, excluded, *options, 5),
        test_utils=checks,
    )
    torch.library.opcheck(
        operators.catalogue_ranks.default, (*tensors, *options), test_utils=checks
    )


@backends
def test_compile_without_a_break_and_without_recompiling(backend: str) -> None:
    def run(queries: Tensor, items: Tensor, chosen: Tensor, excluded: Tensor) -> Tensor:
        return lk.catalogue_cross_entropy(queries * 2, items, chosen, excluded=excluded) + 1

    def results(program: Any, n_rows: int) -> list[Tensor]:
        problem = make_catalogue(n_rows, 50, 8, n_excluded=3, seed=n_rows).to(torch.float32)
        queries = problem.queries[:, 0].clone().requires_grad_()
        items = problem.items.clone().requires_grad_()
        loss = program(queries, items, problem.chosen, problem.excluded)
        return [loss, *torch.autograd.grad(loss, [queries, items])]

    torch._dynamo.reset()
    with lk.use_backend(backend):
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        for number, n_rows in enumerate((4, 6, 9, 13)):
            if number == 2:  # by now the number of rows is a symbol
                torch.compiler.set_stance("fail_on_recompile")
            try:
                found = results(compiled, n_rows)
            finally:
                torch.compiler.set_stance("default")
            for mine, exact in zip(found, results(run, n_rows), strict=True):
                torch.testing.assert_close(mine, exact)


@backends
def test_autocast_sets_the_precision(backend: str) -> None:
    problem = make_catalogue(30, 400, 24).to(torch.float32)
    arguments = (problem.queries[:, 0], problem.items, problem.chosen)
    with lk.use_backend(backend):
        wanted = lk.catalogue_cross_entropy(*arguments, precision="bf16")
        with torch.autocast("cpu", torch.bfloat16):
            found = lk.catalogue_cross_entropy(*arguments)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_beside_the_table_and_its_gradient() -> None:
    """Scores would be 800 MB, twice over."""
    program = """
import torch, lares_kernels as lk
def peak():
    return int([l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1])
queries, items = torch.randn(1024, 64), torch.randn(200_000, 64).requires_grad_()
targets = torch.randint(200_000, (1024,))
lk.catalogue_cross_entropy(queries, items[:300], targets % 300).backward()
items.grad = None
before = peak()
lk.catalogue_cross_entropy(queries.requires_grad_(), items, targets).backward()
print(peak() - before - items.grad.numel() * 4 // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 64 * 1024  # kB
