"""What the environment says about a benchmark run.

``LARES_BENCH_QUICK=1`` takes two rounds of everything, to see that it runs; its rows go to a folder
that git ignores. ``LARES_BENCH_RESULTS=FILE`` names another file for the rows.
"""

from __future__ import annotations

import os
from pathlib import Path

QUICK = os.environ.get("LARES_BENCH_QUICK", "") not in ("", "0")
ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "benchmarks" / "results" / "cpu.csv"
GPU_PUBLISHED = ROOT / "benchmarks" / "results" / "gpu.csv"
LOCAL = ROOT / "benchmarks" / "results" / "local" / "cpu.csv"


def results_file() -> Path:
    """Where the rows of this run go."""
    given = os.environ.get("LARES_BENCH_RESULTS")
    if given:
        return Path(given)
    return LOCAL if QUICK else PUBLISHED
