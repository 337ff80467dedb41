"""Raw item ids and the catalogue rows they stand for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lares.errors import DataError
from lares.files import atomic_write


class Vocabulary:
    """Raw ids in ascending order; the first stands in catalogue row 1 (row 0 is padding).

    Whole-number ids that are exactly ``1..n`` therefore keep their numbers.

    Args:
        ids: distinct raw ids, ascending: whole numbers or strings.
    """

    def __init__(self, ids: NDArray[Any]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_items(self) -> int:
        """Catalogue rows, padding row included."""
        return len(self.ids) + 1

    @property
    def is_numeric(self) -> bool:
        """Whether raw ids are whole numbers."""
        return self.ids.dtype.kind in "iu"

    def encode(self, raw: Iterable[Any]) -> NDArray[np.int64]:
        """Catalogue rows of raw ids; strings of digits serve for whole numbers.

        Raises:
            DataError: an id is not in the vocabulary.
        """
        wanted = list(raw)
        if self.is_numeric:
            try:
                keys = np.array([int(value) for value in wanted], dtype=np.int64)
            except (TypeError, ValueError):
                bad = next(value for value in wanted if not str(value).lstrip("-").isdigit())
                raise DataError(f"item {bad!r} is unknown: items are whole numbers here") from None
        else:
            keys = np.array([str(value) for value in wanted], dtype=self.ids.dtype.type)
        places = np.searchsorted(self.ids, keys)
        found = places < len(self.ids)
        found[found] = self.ids[places[found]] == keys[found]
        if not found.all():
            bad = keys[int(np.argmin(found))].item()
            raise DataError(f"item {bad!r} is unknown to this catalogue of {len(self)} items")
        return places.astype(np.int64) + 1

    def decode(self, rows: Iterable[int]) -> list[Any]:
        """Raw ids of catalogue rows in ``1..n``."""
        values: list[Any] = self.ids[np.fromiter(rows, dtype=np.int64) - 1].tolist()
        return values

    def save(self, path: Path) -> None:
        """Write the ids as a JSON list, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(self.ids.tolist()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """The vocabulary in a file; ``DataError`` if it is missing or broken."""
        try:
            ids = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a readable list of items: {error}") from error
        if not isinstance(ids, list) or not ids:
            raise DataError(f"{path} holds no list of items")
        return cls(np.array(ids))
