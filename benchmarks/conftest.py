"""What the benchmarks share: recorders and the table of their rows, the number of threads put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.core.allocator import keep_freed_memory
from benchmarks.core.settings import CATALOGUE_PUBLISHED, CORES_PUBLISHED, PUBLISHED, results_file
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import CatalogueRow, Row
from benchmarks.report.tables import run_table

RECORDERS = pytest.StashKey[list[Recorder]]()


def _recorder(published: Path, kind: type[Row] = Row) -> Any:
    """What appends rows to the results file; the machine's peak is its first."""

    @pytest.fixture(scope="session")
    def made(pytestconfig: pytest.Config) -> Recorder:
        keep_freed_memory()
        recorder = Recorder(results_file(published), kind=kind)
        pytestconfig.stash.setdefault(RECORDERS, []).append(recorder)
        recorder.record_peaks()
        return recorder

    return made


recorder = _recorder(PUBLISHED)
cores_recorder = _recorder(CORES_PUBLISHED)
catalogue_recorder = _recorder(CATALOGUE_PUBLISHED, CatalogueRow)


@pytest.hookimpl(trylast=True)  # after pytest-benchmark's table of our own alone
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what every implementation took, or why it could not run."""
    for made in config.stash.get(RECORDERS, []):
        terminalreporter.section(f"rows in {made.paths[0]}")
        terminalreporter.write_line(run_table(made.rows))


@pytest.fixture
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
