"""Tables that are given back, of the library that the interactions came in."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow as pa

from lares.data.formats.arrow import is_in_memory, library_of
from lares.errors import ConfigError
from lares.plain import one_of

LIBRARIES = ("pandas", "polars", "arrow")


def library_for(data: object) -> str:
    """Return the library whose tables answer for ``data``: theirs, Arrow's for files and dicts."""
    return library_of(data) if is_in_memory(data) else "arrow"


def as_table_of(library: str, table: pa.Table) -> Any:
    """Return an Arrow table as one of ``library``.

    Raises:
        ConfigError: there is no such library, or it is not installed.
    """
    one_of("tables", library, LIBRARIES)
    if library == "arrow":
        return table
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"tables are those of {library}, which cannot be imported ({error}): pip install "
            f"{library}, or set the recommender's attribute tables to 'arrow'"
        ) from error
    return table.to_pandas() if library == "pandas" else module.from_arrow(table)
