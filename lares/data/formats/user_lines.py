"""Text with a user a line, and the user's items behind, oldest first, with blanks between (S3-Rec)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lares.data.formats.text_lines import text_lines
from lares.data.formats.text_table import TextTable
from lares.data.tables import require_file
from lares.errors import DataError
from lares.names import shown


class UserLines(TextTable):
    """A file of such lines as a table with a row for each item.

    Args:
        path: the file.
        names: of the columns of users and items.

    Raises:
        DataError: there is no such file, or it is empty.
    """

    def __init__(self, path: Path, names: tuple[str, str]) -> None:
        require_file(path)
        super().__init__(path, [path])
        self.names = list(names)
        self._names = [self.names]
        self.form = "text, a user and the items a line"

    def query(self, part: int, columns: Sequence[str]) -> str | None:
        return None

    def records(self, part: int) -> Iterator[tuple[int, list[str]]]:
        for line, text in enumerate(text_lines(self.path), 1):
            user, *items = text.split() or [""]
            if user and not items:
                raise DataError(
                    f"{self.path}, line {line}: user {shown(user)} has no item; a line is a user and "
                    "the items, with blanks between"
                )
            for item in items:
                yield line, [user, item]
