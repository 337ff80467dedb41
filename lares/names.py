"""Names and values in messages, and names of files that are no text."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable

_SHOWN = 200  # letters of a value


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or a list of what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def shown(value: object) -> str:
    """Return a value as an error message has it: its ``repr``, of what is long the beginning."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a whole number of thousands of digits"
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}... ({len(text):,} letters)"


def one_line(message: str) -> str:
    """Return a message for a terminal: what would break its line or steer the terminal is escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in message.replace("\n", " ")
    )


def as_typed(argument: str) -> str:
    """Return text of the command line as UTF-8 has it, where the system's encoding has no such letters.

    Python keeps the bytes of what it cannot decode, which is right for names of files alone.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(argument).decode()
        except UnicodeError:
            pass
    return argument


def utf8_name(path: str | os.PathLike[str]) -> str | None:
    """Return a file's name for libraries that take UTF-8 alone; None if it is none."""
    try:
        return os.fsencode(path).decode()
    except UnicodeError:
        return None


def shell_word(word: str) -> str:
    """Return a word as a shell reads it, on one line, also if it is no text."""
    if utf8_name(word) is not None and word.isprintable():
        return shlex.quote(word)
    escaped = "".join(
        chr(byte)
        if (chr(byte).isalnum() and byte < 128) or chr(byte) in "./_-"
        else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{escaped}'"
