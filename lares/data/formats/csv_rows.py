"""The rows of the csv module's readers, whose cells may be of any length."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from typing import Any

_LONGEST_CELL = 2**31 - 1  # letters; the most that the csv module can be told on every system
# The limit is the whole process's: it is another's again after every row, and one thread's at a time.
_ONE_AT_A_TIME = threading.Lock()


def rows_of(reader: Any) -> Iterator[list[str]]:
    """Give the rows of a ``csv.reader``, also those with cells beyond the module's usual limit.

    Raises:
        csv.Error: as the reader does.
    """
    while True:
        with _ONE_AT_A_TIME:
            before = csv.field_size_limit(_LONGEST_CELL)
            try:
                row = next(reader, None)
            finally:
                csv.field_size_limit(before)
        if row is None:
            return
        yield row
