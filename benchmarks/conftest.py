"""What the benchmarks share: one recorder a run, the number of threads put back after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.allocator import keep_freed_memory
from benchmarks.recorder import Recorder
from benchmarks.results import CatalogueRow
from benchmarks.settings import CATALOGUE_PUBLISHED, CORES_PUBLISHED, results_file


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    """Appends rows to the results file; the machine's peak is its first."""
    keep_freed_memory()
    made = Recorder(results_file())
    made.record_peaks()
    return made


@pytest.fixture(scope="session")
def cores_recorder() -> Recorder:
    """The same for the cores that mix the whole window."""
    keep_freed_memory()
    made = Recorder(results_file(CORES_PUBLISHED))
    made.record_peaks()
    return made


@pytest.fixture(scope="session")
def catalogue_recorder() -> Recorder:
    """The same for what scales with the catalogue."""
    keep_freed_memory()
    made = Recorder(results_file(CATALOGUE_PUBLISHED), kind=CatalogueRow)
    made.record_peaks()
    return made


@pytest.fixture
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
