"""Lines of text files, plain or compressed, and what to do about files that are no text."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lares.data.file_names import compression
from lares.errors import DataError
from lares.names import shell_word

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# How files begin that are no text, and what to do about it.
_PACKED = {
    b"\x1f\x8b": "compressed with gzip; its name must end in .gz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; its name must end in .zst",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"PAR1": "Parquet; its name must end in .parquet, or --data.format parquet say so",
}
_RECODE = "convert the file first, as with iconv -f {} -t UTF-8 {} > NEW_FILE"


def text_lines(path: Path, longest: int | None = None) -> Iterator[str]:
    """Give the lines of a file with their ends, whichever those are; a pipe or a device is a file, too.

    Args:
        path: of the file; .gz and .zst at its end say that it is compressed.
        longest: letters that a line may have, its end among them; None is any number.

    Raises:
        DataError: the file cannot be read, is no UTF-8 text, or a line is longer.
    """
    try:
        with open(path, "rb") as opened, pa.input_stream(opened, compression(path)) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
            number = 0
            while line := text.readline(-1 if longest is None else longest + 1):
                number += 1
                if longest is not None and len(line) > longest:
                    raise DataError(f"{path}, line {number} has more than {longest:,} letters")
                _require_utf8(line, path, number)
                yield line
    except (OSError, EOFError, ValueError) as error:  # the last of a name with NUL in it
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _require_utf8(line: str, path: Path, number: int) -> None:
    """Raise ``DataError`` if bytes of a line could not be decoded, and stand in it as surrogates."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        name = shell_word(str(path))
        start = line[:2].encode(errors="surrogateescape")[:2]
        if number == 1 and start in _UTF16:
            raise DataError(
                f"{path}, line 1: the file is UTF-16; {_RECODE.format('UTF-16', name)}"
            ) from error
        for magic, what in _PACKED.items():
            if number == 1 and line[: len(magic)].encode(errors="surrogateescape").startswith(
                magic
            ):
                raise DataError(f"{path}, line 1: the file is {what}") from error
        byte = ord(line[error.start]) & 0xFF
        raise DataError(
            f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; "
            f"{_RECODE.format('LATIN1', name)}"
        ) from error
