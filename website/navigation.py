"""The navigation of the site: the sections and links of docs/README.md."""

from __future__ import annotations

import re
from typing import NamedTuple

_SECTION = re.compile(r"^\*\*(.+?)\*\*")
_ENTRY = re.compile(r"^- \[(.+?)\]\((.+?)\)")


class Entry(NamedTuple):
    """A page: its title, and its path from docs/."""

    title: str
    path: str


def sections(page: str) -> list[tuple[str, list[Entry]]]:
    """Return the sections, each with its pages: lines that begin in bold, and the list items below.

    Raises:
        ValueError: a list item with a link stands before the first section.
    """
    found: list[tuple[str, list[Entry]]] = []
    for line in page.splitlines():
        section, entry = _SECTION.match(line), _ENTRY.match(line)
        if section:
            found.append((section[1], []))
        elif entry:
            if not found:
                raise ValueError(f"docs/README.md: {line!r} stands in no section")
            found[-1][1].append(Entry(entry[1], entry[2]))
    return found
