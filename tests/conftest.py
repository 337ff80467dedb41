"""What several test folders share: small data on disk, a fast model, backends by name."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lares_kernels import use_backend
from lares_kernels.binding.cpu_library import load, use_instruction_set
from lares_kernels.gpu import scratch
from tests.kernels.tools import cannot_run, cpu_sets
from tests.tiers import longest_first, mark_long

PROGRAMS = ("reference", "equations")
# Tests hold kernels to the reference themselves; tests/kernels/registry/test_self_check.py is of these
# checks.
os.environ.setdefault("LARES_SELF_CHECK", "0")
# Triton's compiler and interpreter make millions of objects and no circles to speak of: looking for
# these takes a twentieth of their time.
gc.set_threshold(200_000, 50, 50)


def pytest_configure(config: pytest.Config) -> None:
    # A script's background jobs begin with SIGINT ignored, and so would what tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # pytest-xdist runs a process on every core: more threads would only wait for each other.
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_long(items)
    longest_first(items)
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no GPU here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both reference programs, one after the other."""
    with use_backend(request.param):
        yield request.param


@pytest.fixture(scope="session")
def cpu_kernel() -> None:
    """The compiled CPU kernel; where there is none, see :func:`tests.kernels.tools.cannot_run`."""
    if isinstance(load(), str):
        cannot_run(f"no CPU kernel: {load()}")


@pytest.fixture(params=cpu_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of the CPU kernel that this processor has, one after the other."""
    with use_instruction_set(request.param):
        yield request.param


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``torch.empty`` gives NaN, and so do kernels' scratch tensors: reading what nobody wrote shows.

    Only while PyTorch is asked to be deterministic; programs that cannot be, such as cuBLAS without a
    workspace of its own, may run all the same.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    monkeypatch.setattr(scratch, "_taken", torch.empty)
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(False)


def write_interactions(path: Path, n_users: int = 60, n_items: int = 25, seed: int = 0) -> Path:
    """Users who walk through the catalogue with steps of 1 or 2: something to learn."""
    import pyarrow as pa  # not at the top: tests of the kernels must run where it is not installed
    import pyarrow.parquet as pq

    generator = np.random.default_rng(seed)
    users, items = [], []
    for user in range(1, n_users + 1):
        length = int(generator.integers(3, 12))
        steps = generator.integers(1, 3, size=length)
        walk = (int(generator.integers(n_items)) + np.cumsum(steps)) % n_items + 1
        users += [user] * length
        items += walk.tolist()
    table = pa.table(
        {"user_id": pa.array(users, pa.int32()), "item_id": pa.array(items, pa.int32())}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="session")
def interactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Parquet file of interactions."""
    return write_interactions(tmp_path_factory.mktemp("data") / "walks.parquet")
