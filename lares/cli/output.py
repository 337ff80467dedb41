"""Standard streams: output takes what commands print in any encoding, and closed ones lead nowhere."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_ERRORS = "lares.printed"
_BYTES = range(0xDC80, 0xDD00)  # how Python decodes bytes of names and arguments that are no text


def _printed(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for a letter that the encoding lacks: of a name that is no text its bytes, of
    anything else the escape that Python's literals have for it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if ord(letter) in _BYTES and not error.encoding.startswith(("utf-16", "utf-32")):
        return bytes([ord(letter) & 0xFF]), error.start + 1
    return letter.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(_ERRORS, _printed)


def keep_closed_streams() -> None:
    """Have standard streams that are closed lead nowhere, here and in the processes started here.

    Else files that are opened later would get their numbers, and what libraries and other processes
    write for people.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # there is no such device
                # The lowest number that is free is this one.
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:  # what is meant for it must not go to standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for the process


def takes_any_text() -> contextlib.AbstractContextManager[None]:
    """Within the block standard output keeps its encoding, and raises for no letter that this lacks."""
    return _reconfigured(errors=_ERRORS)


def is_utf8() -> contextlib.AbstractContextManager[None]:
    """Within the block standard output is UTF-8, as files are that are read, with their line ends."""
    return _reconfigured(encoding="utf-8", errors=_ERRORS, newline="\n")


@contextlib.contextmanager
def _reconfigured(**options: Any) -> Iterator[None]:
    stream = sys.stdout
    if not hasattr(stream, "reconfigure"):  # none, or one that a program put there
        yield
        return
    before = {"encoding": stream.encoding, "errors": stream.errors}
    stream.reconfigure(**options)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # it takes no more, or is closed
            stream.reconfigure(**before)
