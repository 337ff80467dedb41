"""Histories of any number, on disk as they are read: memory holds as much as there is room for."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lares.recommender.asked import Asked


class HistorySpool:
    """Takes histories, a few at a time, and gives them back as one :class:`Asked`.

    Args:
        folder: where there is room for them; the files have no names there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._users, self._items, self._offsets = (_unnamed(folder) for _ in range(3))
        self._offsets.write(np.zeros(1, np.int64).data)  # where the first one starts
        self._n_items = self._n_users = 0

    def add(self, histories: Sequence[Sequence[int]]) -> None:
        """Take histories of rows, oldest first; their users are numbered on, from 0.

        Raises:
            OSError: there is no room for them, and the error names the folder.
        """
        try:
            self._add(histories)
        except OSError as error:
            error.filename = str(self._folder)
            raise

    def _add(self, histories: Sequence[Sequence[int]]) -> None:
        stops = self._n_items + np.cumsum([len(history) for history in histories], dtype=np.int64)
        items = [row for history in histories for row in history]
        numbers = np.arange(self._n_users, self._n_users + len(histories), dtype=np.int64)
        self._users.write(numbers.data)
        self._items.write(np.array(items, dtype=np.int32).data)
        self._offsets.write(stops.data)
        for file in (self._users, self._items, self._offsets):
            file.flush()
        self._n_items += len(items)
        self._n_users += len(histories)

    def asked(self) -> Asked:
        """Return all histories."""
        offsets = _mapped(self._offsets, np.int64)
        return Asked(
            pa.array(_mapped(self._users, np.int64)),
            _mapped(self._items, np.int32),
            offsets[:-1],
            offsets[1:],
            None,
        )


def _unnamed(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)  # as long as it is mapped


def _mapped(file: IO[bytes], kind: Any) -> NDArray[Any]:
    file.flush()
    if not file.tell():
        return np.empty(0, kind)
    return np.memmap(file, dtype=kind, mode="r")
