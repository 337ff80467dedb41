"""What the benchmarks share: recorders and the table of their rows, the number of threads put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.core.allocator import keep_freed_memory
from benchmarks.core.settings import CATALOGUE_PUBLISHED, CORES_PUBLISHED, PUBLISHED, results_file
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import CatalogueRow, Row
from benchmarks.report.tables import run_table

RECORDERS = pytest.StashKey[list[Recorder]]()


def _recorder(config: pytest.Config, published: Path, kind: type[Row]) -> Recorder:
    keep_freed_memory()
    made = Recorder(results_file(published), kind=kind)
    config.stash.setdefault(RECORDERS, []).append(made)
    made.record_peaks()
    return made


@pytest.fixture(scope="session")
def recorder(pytestconfig: pytest.Config) -> Recorder:
    """Appends rows to the results file; the machine's peak is its first."""
    return _recorder(pytestconfig, PUBLISHED, Row)


@pytest.fixture(scope="session")
def cores_recorder(pytestconfig: pytest.Config) -> Recorder:
    """The same for the cores that mix the whole window."""
    return _recorder(pytestconfig, CORES_PUBLISHED, Row)


@pytest.fixture(scope="session")
def catalogue_recorder(pytestconfig: pytest.Config) -> Recorder:
    """The same for what scales with the catalogue."""
    return _recorder(pytestconfig, CATALOGUE_PUBLISHED, CatalogueRow)


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
