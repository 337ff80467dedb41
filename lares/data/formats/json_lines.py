"""JSON lines as tables: an object a line, whose fields are columns. A field may be missing in some."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lares.data.file_names import compression
from lares.data.formats.text_lines import text_lines
from lares.data.formats.text_table import TextTable, literal
from lares.data.tables import require_file
from lares.errors import DataError
from lares.names import shown, utf8_name

_LOOKED_AT = 1000  # first lines of a part, whose fields are its columns


class JsonTable(TextTable):
    """A file of JSON lines, plain or compressed (.gz, .zst), or several.

    Args:
        path: file or folder, for messages.
        parts: the files.

    Raises:
        DataError: a file cannot be read, or its first lines hold anything but objects.
    """

    def __init__(self, path: Path, parts: Sequence[Path]) -> None:
        super().__init__(path, parts)
        fields: dict[str, None] = {}
        for part in self._parts:
            require_file(part)
            for _, record in islice(_objects(part), _LOOKED_AT):
                fields.update(dict.fromkeys(record))
        self.names = list(fields)
        self._names = [self.names] * len(self._parts)
        files = "" if len(self._parts) == 1 else f", {len(self._parts)} files"
        self.form = f"JSON lines{files}"

    def query(self, part: int, columns: Sequence[str]) -> str | None:
        name = utf8_name(self._parts[part].absolute())
        if name is None:
            return None
        fields = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
        return (
            f"SELECT * FROM read_json({literal(glob.escape(name))}, format = 'newline_delimited', "
            f"auto_detect = false, hive_partitioning = false, columns = {{{fields}}}, "
            f"compression = '{compression(self._parts[part]) or 'none'}')"
        )

    def records(self, part: int) -> Iterator[tuple[int, list[str | None]]]:
        for line, record in _objects(self._parts[part]):
            yield line, [_text(record.get(name)) for name in self.names]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the objects of a file and their lines; blank lines are none."""
    for line, text in enumerate(text_lines(path), 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {line}: {shown(text.strip())} is no JSON: {error}"
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{path}, line {line}: {shown(record)} is no JSON object; write one object a line"
            )
        yield line, record


def _text(value: Any) -> str | None:
    """Return a field's value as text."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
