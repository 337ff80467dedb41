"""Every implementation is held to the equations in float64 before it is timed.

Everything is compared without dropout, from a first state that is given. The op is compared with
dropout, too, where it is timed so, since its draws are the equations' own. In bf16 the yardstick is
what plain PyTorch in bf16 differs from float64 by: without dropout the padded program under autocast;
with dropout the equations in bf16, because other masks are another problem (the worst gradient's error
was seen to differ threefold from one set of masks to another). tf32 is held to the same rule. On a GPU
the hand-written reference stands for the equations, which would keep every activation of large cases.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from benchmarks.cases.implementations import build, call_of, is_op
from benchmarks.cases.op import Case
from benchmarks.cases.problem import problem_of
from benchmarks.core.entry import NotEqual

FORWARD_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
YARDSTICKS = 2.0
SANITY = 0.1  # for plain in bf16 and tf32, which is its own yardstick


class Errors(NamedTuple):
    """Relative distance of ``last``, and the worst of the gradients (0 without backward)."""

    forward: float
    gradient: float


def relative_errors(found: list[Tensor], exact: list[Tensor]) -> Errors:
    """Distance of ``[last, *gradients]`` from the exact ones, in the norm of each tensor."""
    apart = [
        float((mine.double() - wanted).norm() / wanted.norm())
        for mine, wanted in zip(found, exact, strict=True)
    ]
    return Errors(apart[0], max(apart[1:], default=0.0))


@lru_cache(maxsize=4)
def exact_values(shape: Case, backward: bool, dropout: bool) -> list[Tensor]:
    """``last`` and gradients of the equations in float64; with dropout they draw their own state."""
    problem = problem_of(shape).double()
    program = build(_truth(shape), problem, "fp32", dropout)
    return problem.evaluate(program, backward, None if dropout else problem.state)


def _truth(case: Case) -> str:
    return "op:equations" if case.device == "cpu" else "op:reference"


def errors_of(name: str, case: Case, dropout: bool) -> Errors:
    """How far an implementation of a case is from float64."""
    problem = problem_of(case)
    program = build(name, problem, case.precision, dropout)
    state = None if dropout else problem.state
    found = call_of(name, problem, program, case.backward, state)()
    return relative_errors(found, exact_values(case.shape, case.backward, dropout))


@lru_cache(maxsize=4)
def yardstick(shape: Case, precision: str, backward: bool, dropout: bool) -> Errors:
    """How far plain PyTorch in bf16 or tf32 is from float64 on the same problem."""
    case = replace(shape, backward=backward, precision=precision)
    return errors_of(_truth(case) if dropout else "plain", case, dropout)


def _errors_to_judge(name: str, case: Case, dropout: bool) -> Errors:
    """Those of the implementation; plain's own yardstick is not measured twice."""
    if name == "plain" and case.precision != "fp32":
        return yardstick(case.shape, case.precision, case.backward, dropout)
    return errors_of(name, case, dropout)


def limits_of(name: str, case: Case, dropout: bool) -> Errors:
    """How far it may be."""
    if case.precision == "fp32":
        return Errors(FORWARD_LIMIT, GRADIENT_LIMIT)
    if name == "plain":
        return Errors(SANITY, SANITY)
    found = yardstick(case.shape, case.precision, case.backward, dropout)
    # Where products are float32's after all, the yardstick is rounding.
    limits = zip((FORWARD_LIMIT, GRADIENT_LIMIT), found, strict=True)
    return Errors(*(max(limit, YARDSTICKS * error) for limit, error in limits))


def check(name: str, case: Case) -> None:
    """Raise :class:`NotEqual` unless the implementation equals the equations."""
    for dropout in (False, True) if case.drops and is_op(name) else (False,):
        errors, limits = _errors_to_judge(name, case, dropout), limits_of(name, case, dropout)
        # Written so that a NaN fails.
        if not (errors.forward <= limits.forward and errors.gradient <= limits.gradient):
            raise NotEqual(
                f"{name} is not equal to the equations in {case}, {dropout=}: errors {errors}, "
                f"limits {limits}; no time is reported"
            )
