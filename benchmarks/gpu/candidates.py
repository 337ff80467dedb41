"""What a sweep over ways to launch the GPU kernels asks, and of which backend: benchmarks.gpu.sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.gpu import LENGTH_50, MAIN, wide_main
from benchmarks.cases.op import Case
from lares_kernels.binding import cuda_library as library
from lares_kernels.cuda import settings as cuda
from lares_kernels.triton.launch import settings as triton
from lares_kernels.triton.launch.rules import Setting, write_rules

Rules = tuple[Setting, ...]
TRAINING = replace(MAIN, backward=True)
WIDE = wide_main(128)
WIDE_TRAINING = replace(WIDE, backward=True)


@dataclass(frozen=True)
class Question:
    """Which of some ways to launch a kernel to take. A backend's *rules* say how all are launched.

    Attributes:
        kernel, precision, rows: of the shipped rule that candidates stand in for.
        cases: to be fast in; the mean of their ratios decides.
        candidates: by name, each from the rules so far to those with the candidate.
    """

    kernel: str
    precision: str
    rows: int
    cases: tuple[Case, ...]
    candidates: dict[str, Callable[[Any], Any]]

    def __str__(self) -> str:
        return f"{self.kernel}, {self.precision}, {self.rows} rows"


@dataclass(frozen=True)
class Launched:
    """A backend whose kernels are launched by rules that a user can give.

    Attributes:
        name: of the backend.
        variable: the environment variable that names a folder with files of rules.
        family: of this machine's card.
        file: the name of a family's file.
        rules: by which a family's calls are launched now.
        use: launches them by others, within a block.
        write: puts rules into a file.
        questions: what is not known without a card, the most telling first.
    """

    name: str
    variable: str
    family: Callable[[], str]
    file: Callable[[str], str]
    rules: Callable[[str], Any]
    use: Callable[[str, Any], AbstractContextManager[None]]
    write: Callable[[Path, Any], None]
    questions: Callable[[], Sequence[Question]]


def changed(question: tuple[str, str, int], **values: object) -> Callable[[Rules], Rules]:
    """Make what changes the first streamed rule of attention of a kernel, precision and rows."""
    return lambda rules: _varied(rules, question, 0, values)


def added(**values: object) -> Callable[[Rules], Rules]:
    """Make what adds a rule like the backward's of 32 rows, for longer sequences."""
    return lambda rules: _varied(rules, BACKWARD, 1, values)


def preferred(question: tuple[str, str, int]) -> Callable[[Rules], Rules]:
    """Make what prefers the resident rule for any number of layers to the streamed one."""

    def prefer(rules: Rules) -> Rules:
        at = _place(rules, *question)
        resident = next(
            rule
            for rule in rules
            if rule.resident and rule.most_layers > 1 and rule.kernel == question[0]
        )
        others = [rule for rule in rules[at:] if rule is not resident]
        return (*rules[:at], resident, *others)

    return prefer


def without(kernel: str, precision: str) -> Callable[[Rules], Rules]:
    """Make what leaves a kernel's calls to the layered plan."""

    return lambda rules: tuple(r for r in rules if (r.kernel, r.precision) != (kernel, precision))


def _varied(
    rules: Rules, question: tuple[str, str, int], kept: int, values: dict[str, object]
) -> Rules:
    """Rules with another like one of theirs in its place, or behind it where that is ``kept``."""
    at = _place(rules, *question)
    return (*rules[: at + kept], replace(rules[at], **values), *rules[at + 1 :])  # type: ignore[arg-type]


def _place(rules: Rules, kernel: str, precision: str, rows: int) -> int:
    return next(
        i
        for i, rule in enumerate(rules)
        if (rule.kernel, rule.precision) == (kernel, precision)
        and (rule.rows == rows or kernel == "weights")
        and not rule.resident
        and "attention" in rule.mixers
    )


FORWARD, BACKWARD = ("forward", "half", 32), ("backward", "half", 32)
WEIGHTS, IEEE = ("weights", "half", 64), ("forward", "ieee", 32)


def triton_questions() -> list[Question]:
    """About registers, stages, resident weights, rows and plans."""
    forward = {
        "resident": preferred(FORWARD),
        **{f"{n} stages": changed(FORWARD, stages=n) for n in (2, 3)},
        "168 registers": changed(FORWARD, registers=168),
    }
    backward = {
        "168 registers": changed(BACKWARD, registers=168),
        "2 stages": changed(BACKWARD, stages=2),
        "8 warps": changed(BACKWARD, warps=8, programs=1),
    }
    long_backward = {
        "64 rows too": added(rows=64, chunk=32),
        "64 rows of 8 warps too": added(rows=64, chunk=32, warps=8, programs=1),
    }
    weights = {f"{n} programs": changed(WEIGHTS, programs=n) for n in (4, 8)}
    return [
        Question(*FORWARD, (MAIN, TRAINING), forward),
        Question(*BACKWARD, (TRAINING,), backward),
        Question(*WEIGHTS, (TRAINING,), weights),
        Question(*BACKWARD, (replace(LENGTH_50, backward=True),), long_backward),
        Question(*IEEE, (replace(MAIN, precision="fp32"),), {"layered": without(*IEEE[:2])}),
    ]


TRITON = Launched(
    name="triton",
    variable=triton.ENVIRONMENT_VARIABLE,
    family=lambda: triton.family_of(torch.device("cuda")),
    file=lambda family: f"{family}.json",
    rules=triton.settings,
    use=triton.use_rules,
    write=write_rules,
    questions=triton_questions,
)


def setting(**values: object) -> Callable[[cuda.Settings], cuda.Settings]:
    """Make what changes settings of the CUDA kernels."""
    return lambda settings: replace(settings, **values)  # type: ignore[arg-type]


def cuda_questions() -> list[Question]:
    """About the products of weights' gradients, and where weights are."""
    weights, widths = ("weights", "half", 16), (TRAINING, WIDE_TRAINING)
    transposed = {
        "sides transposed": setting(sides_transposed=True),
        "both": setting(products_ahead=True, sides_transposed=True),
    }
    warps = {f"{n} warps": setting(product_warps=n) for n in (8, 12, 32)}
    cache = {"largest cache": setting(largest_cache=True)}
    staged = {
        "forward staged": setting(forward_staged=True),
        "backward staged": setting(backward_staged=True),
        "both staged": setting(forward_staged=True, backward_staged=True),
    }
    backward = {
        "streamed": setting(backward_weights="streamed"),
        "staged": setting(backward_weights="streamed", backward_staged=True),
    }
    forward = {
        "streamed": setting(forward_weights="streamed"),
        "staged": setting(forward_weights="streamed", forward_staged=True),
    }
    return [
        Question(*weights, widths, {"operands loaded ahead": setting(products_ahead=True)}),
        Question(*weights, (TRAINING,), transposed),
        Question(*weights, widths, warps),
        Question("all kernels", "half", 32, (WIDE, WIDE_TRAINING), cache),
        Question("all kernels", "half", 32, (WIDE, WIDE_TRAINING), staged),
        Question(*BACKWARD, (TRAINING,), backward),
        Question(*FORWARD, (MAIN, TRAINING), forward),
    ]


CUDA = Launched(
    name="cuda",
    variable=cuda.ENVIRONMENT_VARIABLE,
    family=lambda: cuda.family_of(library.card(torch.cuda.current_device())),
    file=cuda.file_name,
    rules=cuda.settings,
    use=cuda.use_settings,
    write=cuda.write_settings,
    questions=cuda_questions,
)
BACKENDS = (CUDA, TRITON)  # what need not be compiled first
