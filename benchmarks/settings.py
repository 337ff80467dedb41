"""What the environment says about a benchmark run.

``LARES_BENCH_QUICK=1`` takes two rounds of everything, to see that it runs; its rows go to a folder
that git ignores. ``LARES_BENCH_RESULTS=FILE`` names another file for the rows; those of the catalogue
and of the other cores go to ``catalogue.csv`` and ``cores.csv`` beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

QUICK = os.environ.get("LARES_BENCH_QUICK", "") not in ("", "0")
ROOT = Path(__file__).parent.parent
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
    return LOCAL.with_name(published.name) if QUICK else published
