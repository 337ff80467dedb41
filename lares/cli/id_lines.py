"""Files of raw ids, one a line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lares.cli.histories import BLANKS, Found, row_of
from lares.data.formats.text_lines import text_lines
from lares.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lares.data.vocabulary import Vocabulary

_LONGEST_ID = 2**24  # letters
_AT_ONCE = 1 << 16  # lines


def read_rows(path: Path, vocabulary: Vocabulary, found: Found) -> NDArray[np.int64]:
    """Return the rows (n,) that a vocabulary has for the ids in a file, in the file's order.

    Args:
        path: of the file; blank lines are passed over.
        vocabulary: of the ids.
        found: counts those that are unknown, which are left out.

    Raises:
        DataError: the file cannot be read, or holds no id.
    """
    parts = []
    for numbers, ids in _pieces(path):
        rows = vocabulary.find(ids)
        for place in np.flatnonzero(rows == 0).tolist():
            rows[place] = row_of(ids[place], f"{path}, line {numbers[place]}", vocabulary, found)
        parts.append(rows)
    if not parts:
        raise DataError(f"{path} holds no id")
    all_rows = np.concatenate(parts)
    return all_rows[all_rows > 0]


def _pieces(path: Path) -> Iterator[tuple[list[int], list[str]]]:
    """Give ids, without line ends, with the numbers of their lines."""
    lines = (
        (number, line.rstrip("\r\n"))
        for number, line in enumerate(text_lines(path, _LONGEST_ID), 1)
    )
    named = ((number, line) for number, line in lines if line.strip(BLANKS))
    while piece := list(islice(named, _AT_ONCE)):
        numbers, ids = zip(*piece, strict=True)
        yield list(numbers), list(ids)
