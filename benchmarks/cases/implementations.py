"""The implementations by name, each as a program from a first state to ``last``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases.baselines import PackedCore, compiled_core, draw_state
from benchmarks.cases.gpu_peers import PEERS, peer_core
from benchmarks.cases.op import Case
from benchmarks.cases.plain_cores import plain_core
from benchmarks.cases.problem import Problem, Program
from benchmarks.core.clock import GRAPH, captured
from lares_kernels import BackendError, available_backends, explain, use_backend
from lares_kernels.spec.call import PRECISIONS
from lares_kernels.triton.launch.rules import WEIGHTS
from lares_kernels.triton.launch.settings import use_weights

SEED = 3
PREFERRED = ("cuda", "triton", "cpu", "reference")  # fastest first


def is_op(name: str) -> bool:
    return name.startswith("op:")


def serves(backend: str, case: Case) -> bool:
    """Whether the backend can run the case on this machine; ``backend:where`` as in names."""
    name, _, where = backend.partition(":")
    if available_backends().get(name) != "usable":
        return False
    try:
        with use_backend(name), _weights(where):
            _explained(case, case.backward, products_of(case.precision))
    except (BackendError, ValueError):
        return False
    return True


def _explained(case: Case, training: bool, precision: str | None, **more: Any) -> Any:
    """What a call of the case's would run."""
    given = {"device": case.device, "training": training, "precision": precision, **more}
    return explain(case.config, [case.max_length] * case.batch, case.steps, **given)


def _weights(where: str) -> contextlib.AbstractContextManager[None]:
    """Forward's weights where a name says; empty: where the settings prefer them."""
    return use_weights(where) if where else contextlib.nullcontext()


def weights_of(case: Case) -> list[str]:
    """The names of a case's forward with its weights in each place, ``op:triton:resident`` and so on.

    None where there is no choice.
    """
    found = [f"triton:{where}" for where in WEIGHTS if serves(f"triton:{where}", case)]
    return [f"op:{name}" for name in found] if len(found) == len(WEIGHTS) else []


def products_of(precision: str) -> str:
    """The op's name of a precision: ``tf32`` is how float32 products are taken."""
    return "fp32" if precision == "tf32" else precision


def op_of(case: Case) -> str:
    """The name of the fastest backend that serves the case, such as ``op:cpu``."""
    return next(f"op:{backend}" for backend in PREFERRED if serves(backend, case))


def names_of(case: Case) -> list[str]:
    """What to compare in a case; the op's fastest backend comes last."""
    baselines = [name for name in case.baselines if not (case.backward and name == "packed")]
    chosen = op_of(case)
    if not case.every_backend:
        return [*baselines, chosen]
    usable = [f"op:{backend}" for backend in available_backends() if serves(backend, case)]
    return [*baselines, *(name for name in usable if name != chosen), chosen]


def build(name: str, problem: Problem, precision: str, dropout: bool) -> Program:
    """The program of an implementation. Where no state is given it draws one, as users let it.

    Args:
        problem: whose parameters and input the program reads; of float64 for a float64 program.
        precision: of the products; ``fp32`` for a float64 program, too. ``tf32`` needs
            ``torch.set_float32_matmul_precision("high")`` while the program runs.
        dropout: whether dropout is on, at the rates of the case.
    """
    name = name.removesuffix(GRAPH)
    if is_op(name):
        return _op(name.removeprefix("op:"), problem, precision, dropout)
    core, case = problem.core(dropout), problem.case
    if name == "packed":
        if dropout:
            raise ValueError("packed is a forward pass without dropout")
        n_rows = int(problem.lengths.sum())
        run: Callable[..., Tensor] = PackedCore(core, n_rows, PRECISIONS[precision])
    elif name in PEERS:
        run = peer_core(name, core, problem.lengths)
    elif name == "compiled":
        run = compiled_core(core)
    elif name == "plain":
        run = plain_core(core)
    else:
        raise ValueError(f"there is no implementation {name!r}")
    autocast = precision == "bf16" and name != "packed"

    def program(state: Tensor | None) -> Tensor:
        if state is None:
            state = draw_state(case.config, problem.hidden.detach())
        with torch.autocast(case.device, torch.bfloat16, enabled=autocast):
            return run(problem.hidden, problem.lengths, case.steps, state)

    return program


def _op(backend: str, problem: Problem, precision: str, dropout: bool) -> Program:
    core, case = problem.core(dropout), problem.case
    name, _, where = backend.partition(":")
    asked = None if problem.hidden.dtype == torch.float64 else products_of(precision)
    hidden, lengths, steps = problem.hidden, problem.lengths, case.steps

    def program(state: Tensor | None) -> Tensor:
        return core(hidden, lengths, num_steps=steps, state=state, seed=SEED, precision=asked).last

    # What runs anyway is called as users call it: without a choice made anew around every call, which
    # would be timed as if it were the op's.
    unasked = _explained(case, dropout, asked, dtype=problem.hidden.dtype)
    if name == unasked.backend and not where:
        return program

    def forced(state: Tensor | None) -> Tensor:
        with use_backend(name), _weights(where):
            return program(state)

    return forced


def call_of(
    name: str, problem: Problem, program: Program, backward: bool, state: Tensor | None = None
) -> Callable[[], list[Tensor]]:
    """What is timed: :meth:`Problem.evaluate`, as one CUDA graph where the name asks for that."""

    def call() -> list[Tensor]:
        return problem.evaluate(program, backward, state)

    return captured(call) if name.endswith(GRAPH) else call
