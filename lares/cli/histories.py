"""Histories of raw item ids, as they are given: on the command line, or a line of a file each."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lares.data.formats.csv_rows import rows_of
from lares.errors import DataError
from lares.names import shown

if TYPE_CHECKING:
    from lares.data.vocabulary import Vocabulary

_PLACES_SHOWN = 5
BLANKS = " \t\n\r\v\f"  # as in data; others are letters of an id
_LONGEST_LINE = 2**27  # letters, of a history, too: what never ends one is no file of histories


class History(NamedTuple):
    """A history as it was asked for: where it stands, and its raw ids as text, none in a blank line."""

    place: str
    ids: list[str]


class Found:
    """Collect what was found amiss where histories and ids were looked up.

    Args:
        kind: of the ids: ``item``, or ``user``.

    Attributes:
        unknown: number of ids that are not known.
        empty: number of histories without items.
    """

    def __init__(self, kind: str = "item") -> None:
        self.kind = kind
        self.unknown = self.empty = 0
        self._items: list[str] = []  # the first ones, with their places
        self._places: list[str] = []
        self._first: DataError | None = None

    def add_unknown(self, place: str, item: str, vocabulary: Vocabulary) -> None:
        """Count an id that a vocabulary does not know."""
        if self._first is None:
            self._first = DataError(f"{place}: {_unknown(vocabulary, item, self.kind)}")
        self.unknown += 1
        if len(self._items) < _PLACES_SHOWN:
            self._items.append(f"{shown(item)} ({place})")

    def add_empty(self, place: str) -> None:
        """Count a history without items."""
        self.empty += 1
        if len(self._places) < _PLACES_SHOWN:
            self._places.append(place)

    def require_none(self) -> None:
        """Raise ``DataError`` if an id is unknown."""
        if self._first is not None:
            raise DataError(
                f"{self._first}"
                + f"; {self._listed()}" * (self.unknown > 1)
                + "; --unknown skip leaves out what is unknown"
            )

    def require_ids(self) -> None:
        """Raise ``DataError`` if a history is empty."""
        if self.empty:
            raise DataError(
                f"{self._places[0]}: '' is not a history; give item ids with commas between, or "
                "--unknown skip, with which it is an empty one"
            )

    def tell_empty(self) -> None:
        """Say on standard error which histories are empty, if any are."""
        if self.empty:
            histories = "empty history" if self.empty == 1 else "empty histories"
            places = ", ".join(self._places) + ", ..." * (self.empty > _PLACES_SHOWN)
            print(f"note: {self.empty:,} {histories}: {places}", file=sys.stderr)

    def tell_unknown(self) -> None:
        """Say on standard error which ids were left out, if any were."""
        if self.unknown:
            print(f"note: left out {self._listed()}", file=sys.stderr)

    def _listed(self) -> str:
        """Return how many ids are unknown, and the first of them with their places, in words."""
        kind = f"unknown {self.kind}" + "s" * (self.unknown > 1)
        more = ", ..." * (self.unknown > _PLACES_SHOWN)
        return f"{self.unknown:,} {kind}: {', '.join(self._items)}{more}"


def read_histories(history: str | None, histories: str | None) -> Iterator[History]:
    """Give every history asked for, on the command line or in a file.

    Raises:
        DataError: the file cannot be read, or a line is not CSV of ids.
    """
    if history is not None:
        yield from _parsed([history], lambda line: "--history")
        return
    from lares.data.formats.text_lines import text_lines  # brings pyarrow

    path, some = Path(str(histories)), False
    lines = text_lines(path, _LONGEST_LINE)
    for each in _parsed(lines, lambda line: f"{path}, line {line}"):
        some = True
        yield each
    if not some:
        raise DataError(f"{path} holds no history")


def _parsed(lines: Iterable[str], place: Callable[[int], str]) -> Iterator[History]:
    """Yield the histories in lines of CSV, where a quoted id may hold a line break.

    Args:
        lines: with their line breaks.
        place: says where a line stands, by its number from 1.
    """
    where, letters = "", 0  # of the history that is being read

    def bounded() -> Iterator[str]:
        nonlocal letters
        for line in lines:
            letters += len(line)
            if letters > _LONGEST_LINE:
                raise DataError(
                    f"{where}: the history has more than {_LONGEST_LINE:,} letters; is there a "
                    "quotation mark that none answers?"
                )
            yield line

    reader = csv.reader(bounded(), skipinitialspace=True, strict=True)
    rows = rows_of(reader)
    while True:
        where, letters = place(reader.line_num + 1), 0
        try:
            ids = next(rows, None)
        except csv.Error as error:
            raise DataError(
                f"{where}: {error}; an id that holds a comma or a quotation mark is quoted, and its "
                'quotation marks doubled: "Duo 3, Live"'
            ) from None
        if ids is None:
            return
        named = [part for part in ids if part.strip(BLANKS)]
        if named != ids and len(ids) > 1:
            raise DataError(
                f"{where}: {shown(','.join(ids))} is not a history; give item ids with commas between"
            )
        yield History(where, named)


def rows_in(wanted: Sequence[History], vocabulary: Vocabulary, found: Found) -> list[list[int]]:
    """Return the rows of histories' items, without those that are unknown, which are counted."""
    all_rows = vocabulary.find(item for history in wanted for item in history.ids).tolist()
    rows: list[list[int]] = []
    end = 0
    for history in wanted:
        start, end = end, end + len(history.ids)
        known = all_rows[start:end]
        if 0 in known:
            known = [
                row or row_of(item, history.place, vocabulary, found)
                for item, row in zip(history.ids, known, strict=True)
            ]
        rows.append([row for row in known if row])
    return rows


def row_of(item: str, place: str, vocabulary: Vocabulary, found: Found) -> int:
    """Return the row of an item that is not found as it stands; 0 if it is unknown, and counted."""
    # Blanks before a comma belong to no id, unless there is an id that ends in them.
    plain = item.strip(BLANKS)
    row = int(vocabulary.find([plain])[0])
    if not row:
        found.add_unknown(place, plain, vocabulary)
    return row


def _unknown(vocabulary: Vocabulary, item: str, kind: str) -> DataError:
    from lares.data.ids import whole_number

    if kind == "user":
        (first,) = vocabulary.decode([1])
        return DataError(
            f"user {shown(item)} is unknown: the data have {len(vocabulary):,} users, such as {first!r}"
        )
    number = whole_number(item) if vocabulary.is_numeric else None
    return vocabulary.unknown(item if number is None else number)
