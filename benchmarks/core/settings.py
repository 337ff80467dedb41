"""What the environment says about a benchmark run.

``LARES_BENCH_QUICK=1`` measures a few cases in about a minute; its rows go to a folder that git
ignores.
``LARES_BENCH_FULL=1`` measures every published case, with as many rounds as published.
``LARES_BENCH_RESULTS=FILE`` names another file for the rows; those of the catalogue and of the other
cores go to ``catalogue.csv`` and ``cores.csv`` beside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Effort(NamedTuple):
    """How much a run measures.

    Attributes:
        name: ``quick``, ``default`` or ``full``.
        budget: seconds of rounds a case, if the fewest rounds take no longer.
        fewest, most: rounds of a case.
        fewest_steps: rounds of a whole training step.
        longest, longest_steps: seconds that the fewest rounds of a peer may take in a case, or of a
            whole training step, else it is left out.
    """

    name: str
    budget: float
    fewest: int
    most: int
    fewest_steps: int
    longest: float
    longest_steps: float


QUICK = Effort("quick", 0.5, fewest=2, most=10, fewest_steps=2, longest=4.0, longest_steps=8.0)
DEFAULT = Effort(
    "default", 1.0, fewest=3, most=100, fewest_steps=3, longest=12.0, longest_steps=40.0
)
FULL = Effort("full", 2.0, fewest=5, most=200, fewest_steps=5, longest=120.0, longest_steps=600.0)


def effort_of(environment: dict[str, str]) -> Effort:
    """What the variables ask for.

    Raises:
        ValueError: they ask for two things at once.
    """
    asked = [
        effort
        for name, effort in (("LARES_BENCH_QUICK", QUICK), ("LARES_BENCH_FULL", FULL))
        if environment.get(name, "") not in ("", "0")
    ]
    if len(asked) > 1:
        raise ValueError("LARES_BENCH_QUICK and LARES_BENCH_FULL exclude each other")
    return asked[0] if asked else DEFAULT


EFFORT = effort_of(dict(os.environ))
ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "benchmarks" / "results" / "cpu.csv"
GPU_PUBLISHED = ROOT / "benchmarks" / "results" / "gpu.csv"
CORES_PUBLISHED = ROOT / "benchmarks" / "results" / "cores.csv"
CATALOGUE_PUBLISHED = ROOT / "benchmarks" / "results" / "catalogue.csv"
LOCAL = ROOT / "benchmarks" / "results" / "local" / "cpu.csv"


def results_file(published: Path = PUBLISHED) -> Path:
    """Where the rows of this run go that are published in ``published``."""
    given = os.environ.get("LARES_BENCH_RESULTS")
    if given:
        return Path(given) if published == PUBLISHED else Path(given).with_name(published.name)
    return LOCAL.with_name(published.name) if EFFORT is QUICK else published
