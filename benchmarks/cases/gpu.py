"""The cases that are timed on a GPU, the most telling first, since the time for all is limited."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cases.op import Case, both_passes, wide
from benchmarks.core.clock import GRAPH

EAGER = ("explicit", "plain", "varlen")
# Against which compiled programs stand: their race has them beside the op.
COMPILED = (
    "explicit",
    "plain",
    "step-compiled",
    f"step-compiled{GRAPH}",
    f"varlen-compiled{GRAPH}",
    "step-autotuned",
    f"step-autotuned{GRAPH}",
    "whole-reduced",
)

MAIN = Case("main", batch=1024, precision="bf16", device="cuda", baselines=EAGER)
LENGTH_50 = replace(MAIN, name="length-50", max_length=50, lengths="full")
SINGLE = replace(MAIN, name="single-20", batch=1, lengths="full")
# Forward of these is raced with its weights in shared memory, too, and read again by every layer.
WEIGHTS = ("main", "single-20", "layers-1", "steps-12", "batch-4096")


def with_compiled(case: Case) -> Case:
    """The case again, raced against compiled programs."""
    return replace(case, name=f"{case.name}-compiled", baselines=COMPILED)


def wide_main(d_model: int) -> Case:
    case = wide(f"width-{d_model}", d_model, batch=1024)
    return replace(case, precision="bf16", device="cuda", baselines=EAGER)


def first_cases() -> list[Case]:
    """What the goals are about."""
    return [*both_passes([MAIN]), LENGTH_50, SINGLE]


def compiled_cases() -> list[Case]:
    """The same beside compiled programs, which take a while to compile."""
    return [with_compiled(case) for case in first_cases()]


def sweep_cases() -> list[Case]:
    """One value away from the main case at a time."""
    varied = [replace(MAIN, name="layers-1", n_layers=1)]
    varied += [replace(MAIN, name=f"steps-{steps}", steps=steps) for steps in (1, 8, 12)]
    varied += [wide_main(128), wide_main(256)]
    varied += [replace(MAIN, name=f"batch-{batch}", batch=batch) for batch in (1, 256, 4096)]
    length_200 = replace(LENGTH_50, name="length-200", batch=256, max_length=200)
    return [
        replace(MAIN, name="dropout", dropped=True),
        replace(MAIN, name="no-dropout", backward=True, dropped=False),
        *both_passes(varied),
        replace(LENGTH_50, backward=True),
        *both_passes([length_200]),
        *both_passes([replace(MAIN, precision="tf32"), replace(MAIN, precision="fp32")]),
    ]


def quick(case: Case) -> Case:
    """The case at a size that takes a blink on a CPU."""
    small = replace(case, batch=min(case.batch, 6), n_layers=1)
    if case.lengths == "full":
        small = replace(small, batch=min(case.batch, 2), max_length=min(case.max_length, 24))
    return small if case.d_model > MAIN.d_model else replace(small, d_model=16, d_ff=32)
