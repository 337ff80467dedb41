"""Links and headings of Markdown pages, as GitHub and the site take them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"^ {0,3}#{1,6} +(.*?)(?: +#+)? *$")
_CODE = re.compile(r"(`+[^`]+`+)")
_INLINE_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_GIVEN_ID = re.compile(r"""<\w[^>]*\b(?:id|name)=["']([^"']+)["']""")
_LINK = re.compile(r"""(\]\(|\b(?:src|href|srcset)=["'])([^)"'\s]+)""")
_ELSEWHERE = re.compile(r"^[a-zA-Z][\w+.-]*:|^//")


class Link(NamedTuple):
    """A link to a file of the tree: its path as written, empty for the page itself, and the anchor."""

    path: str
    anchor: str


def prose(page: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page that are no code, with their numbers from 0."""
    fence = ""
    for number, line in enumerate(page.splitlines()):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif found:
            fence = found[1]
        else:
            yield number, line


def slug(heading: str, separator: str = "-") -> str:
    """Return the anchor that GitHub gives a heading's text, tags and marks of Markdown taken off."""
    text = _INLINE_LINK.sub(r"\1", heading)
    text = re.sub(r"<[^>]*>", "", text).strip().lower()
    return re.sub(r"[^\w\- ]", "", text.replace("*", "")).replace(" ", separator)


def anchors(page: str) -> list[str]:
    """Return the anchors of a page, in order; twice what two headings share.

    A heading's second anchor of a name has a number behind it, GitHub's another than the site's: a
    link there leads to the first of them.
    """
    found = []
    for _, line in prose(page):
        heading = _HEADING.match(line)
        if heading:
            found.append(slug(heading[1]))
        found += _GIVEN_ID.findall(line)
    return found


def links(page: str) -> list[Link]:
    """Return the links of a page, pictures too, that lead into the tree."""
    found = []
    for _, line in prose(page):
        for _, target in _LINK.findall(_CODE.sub("", line)):
            if not _ELSEWHERE.match(target):
                path, _, anchor = target.partition("#")
                found.append(Link(path, anchor))
    return found


def with_links(page: str, change: dict[str, str]) -> str:
    """Return a page whose links lead to the values of ``change`` for its keys, code left alone."""
    lines = page.splitlines()
    for number, line in prose(page):
        parts = _CODE.split(line)
        parts[::2] = (
            _LINK.sub(lambda it: it[1] + change.get(it[2], it[2]), part) for part in parts[::2]
        )
        lines[number] = "".join(parts)
    return "\n".join(lines) + "\n"
