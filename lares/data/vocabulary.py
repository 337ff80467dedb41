"""Raw ids and the catalogue rows they stand for."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lares.data.ids import as_ids, id_key, is_text
from lares.errors import DataError
from lares.files import write_text
from lares.names import shown

_FEW = 1000  # texts that are found one by one, without a table of all ids


class Vocabulary:
    """Raw ids in ascending order; the first stands in catalogue row 1 (row 0 is padding).

    Whole-number ids that are exactly ``1..n`` therefore keep their numbers.

    Args:
        ids: distinct raw ids, ascending: whole numbers of 64 bits or text, in a list, a NumPy or an
            Arrow array.

    Raises:
        DataError: they are not ascending, neither all whole numbers nor all text, or one is null.
    """

    def __init__(self, ids: Any) -> None:
        self._ids: pa.Array = as_ids(ids)
        ascending = pc.less(self._ids[:-1], self._ids[1:])
        if not pc.all(ascending, min_count=0).as_py():
            place = pc.index(ascending, False).as_py()
            raise DataError(
                f"ids must ascend, each standing there once: {shown(self._ids[place].as_py())} stands "
                f"before {shown(self._ids[place + 1].as_py())}"
            )

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> NDArray[Any]:
        """(n,) raw ids: int64 or uint64, or an object array of strings, which is made at every call."""
        ids: NDArray[Any] = self._ids.to_numpy(zero_copy_only=False)
        return ids

    @property
    def n_items(self) -> int:
        """Catalogue rows, padding row included."""
        return len(self._ids) + 1

    @property
    def is_numeric(self) -> bool:
        """Tell whether raw ids are whole numbers."""
        return not is_text(self._ids.type)

    def equals(self, other: Vocabulary) -> bool:
        """Return whether ``other`` has the same ids."""
        return bool(self._ids.equals(other._ids))

    def digest(self) -> bytes:
        """Return a hash of the ids (32 bytes), the same on every machine."""
        hasher = hashlib.blake2b(str(self._ids.type).encode(), digest_size=32)
        if self.is_numeric:
            hasher.update(self.ids.astype(self.ids.dtype.newbyteorder("<")).data)
        else:
            _, places, letters = self._ids.buffers()
            ends = np.frombuffer(places, np.int64)[self._ids.offset :][: len(self) + 1]
            hasher.update(np.diff(ends).astype("<i8").data)
            hasher.update(memoryview(letters or b"")[ends[0] : ends[-1]])
        return hasher.digest()

    def find(self, raw: Iterable[Any]) -> NDArray[np.int64]:
        """Return catalogue rows (n,) of raw ids, 0 for an id that is not in the catalogue.

        Whole numbers may be given as numbers or as text, written as they are printed: ``"7"`` is 7,
        ``"07"`` and ``"7.0"`` are not.
        """
        keys = [id_key(value, self._ids.type) for value in raw]
        possible = np.array([key is not None for key in keys], dtype=bool)
        rows = np.zeros(len(keys), dtype=np.int64)
        rows[possible] = self._places([key for key in keys if key is not None]) + 1
        return rows

    def _places(self, keys: list[Any]) -> NDArray[np.int64]:
        """Return places (n,) of keys among the ids, -1 for those that are not there."""
        places: NDArray[np.int64]
        if not len(self):
            return np.full(len(keys), -1)
        if self.is_numeric:
            wanted = np.array(keys, dtype=self.ids.dtype)
            places = np.minimum(np.searchsorted(self.ids, wanted), len(self) - 1)
            places[self.ids[places] != wanted] = -1
        elif len(keys) <= _FEW:
            all_places = range(len(self))
            before = [bisect_left(all_places, key, key=self._id_at) for key in keys]
            places = np.minimum(np.array(before, dtype=np.int64), len(self) - 1)
            places[[self._id_at(p) != key for p, key in zip(places, keys, strict=True)]] = -1
        else:
            indices = pc.index_in(pa.array(keys, pa.large_string()), value_set=self._ids)
            places = indices.fill_null(-1).to_numpy().astype(np.int64)
        return places

    def _id_at(self, place: int) -> Any:
        return self._ids[place].as_py()

    def encode(self, raw: Iterable[Any]) -> NDArray[np.int64]:
        """Return catalogue rows (n,) of raw ids, given as for :meth:`find`.

        Raises:
            DataError: an id is not in the vocabulary.
        """
        wanted = list(raw)
        rows = self.find(wanted)
        if not rows.all():
            raise self.unknown(wanted[int(np.argmin(rows != 0))])
        return rows

    def unknown(self, value: Any) -> DataError:
        """Return the error for an id that :meth:`find` does not find."""
        key = id_key(value, self._ids.type)
        if key is None and self.is_numeric:
            return DataError(
                f"item {shown(value)} is unknown: items are whole numbers here, such as "
                f"{self._ids[0].as_py()}"
            )
        item = shown(value if key is None else key)
        return DataError(f"item {item} is unknown to this catalogue of {len(self)} items")

    def decode(self, rows: Iterable[int]) -> list[Any]:
        """Return the raw ids of catalogue rows in ``1..n``.

        Raises:
            DataError: there is no such row.
        """
        return list(self.take(np.fromiter(rows, dtype=np.int64)).to_pylist())

    def take(self, rows: NDArray[np.integer[Any]]) -> pa.Array:
        """Return the raw ids of catalogue rows (n,) in ``1..n`` as an Arrow array; errors as of
        :meth:`decode`."""
        outside = (rows < 1) | (rows > len(self))
        if outside.any():
            bad = rows[int(np.argmax(outside))]
            raise DataError(f"there is no item in row {bad}; rows of items are 1..{len(self)}")
        return self._ids.take(pa.array(rows - 1))

    def save(self, path: Path) -> None:
        """Write the ids as a JSON list, whole or not at all."""
        write_text(path, json.dumps(self._ids.to_pylist()))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """The vocabulary in a file; ``DataError`` if it is missing or broken."""
        try:
            ids = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is not a readable list of items: {error}") from error
        if not isinstance(ids, list) or not ids:
            raise DataError(f"{path} holds no list of items")
        try:
            return cls(ids)
        except DataError as error:
            raise DataError(f"{path} is no list of items: {error}") from error
