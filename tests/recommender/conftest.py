"""Interactions as a table, and a recommender that was fitted to them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares import Recommender
from tests.recommender.helpers import small


@pytest.fixture(scope="session")
def table(interactions: Path) -> pa.Table:
    return pq.read_table(interactions)


@pytest.fixture(scope="session")
def fitted(table: pa.Table) -> Recommender:
    """Nobody may change it."""
    return small().fit(table, progress=False)
