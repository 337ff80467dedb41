"""A small recommender, and tables as they come from every library."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lares import Recommender
from tests.training.helpers import SMALL as OPTIONS


def small(**options: Any) -> Recommender:
    """A recommender that trains in a second; ``options`` by dotted names."""
    plain = {f"{s}.{name}": value for s, given in OPTIONS.items() for name, value in given.items()}
    return Recommender(**{**plain, **options})


def rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a table of any library."""
    if isinstance(table, pa.Table):
        return table.to_pylist()
    return table.to_dict("records") if hasattr(table, "iloc") else table.to_dicts()


def lists(table: Any) -> dict[Any, list[Any]]:
    """The items of everybody's list, in the order of the rows."""
    found: dict[Any, list[Any]] = {}
    for row in rows(table):
        found.setdefault(row["user"], []).append(row["item"])
    return found


def histories(table: pa.Table) -> dict[Any, list[Any]]:
    """Everybody's items, in the order of the rows."""
    found: dict[Any, list[Any]] = {}
    for row in table.to_pylist():
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found
