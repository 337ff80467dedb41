"""Lines that say of each which data they are of."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

WIDTH = 80


def labelled(label: str, line: str) -> str:
    """Return ``line`` with ``label`` before it, wrapped to be no wider than ``WIDTH``."""
    indent = " " * (len(label) + 2)
    return textwrap.fill(
        line.removeprefix(f"{label}: "),
        WIDTH,
        initial_indent=f"{label}  ",
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


class _Labels:
    """A stream that hands lines on, labelled; it has all else of the one that it hands them to."""

    def __init__(self, stream: Any, label: str) -> None:
        self._stream, self._label, self._begun = stream, label, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._stream.write(labelled(self._label, line) + "\n" if line.strip() else "\n")
        return len(text)

    def end(self) -> None:
        """Hand on a line that was begun."""
        if self._begun:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lines_labelled(label: str) -> Iterator[None]:
    """Within the block lines on standard output begin with ``label``."""
    if sys.stdout is None:
        yield
        return
    labels = _Labels(sys.stdout, label)
    with contextlib.redirect_stdout(labels):
        yield
    labels.end()
