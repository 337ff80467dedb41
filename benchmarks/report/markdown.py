"""Markdown: tables, templates, and parts of a page between markers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
_NEXT_PART = "\n\n<!-- part -->\n\n"


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int) -> str:
    """A table whose first ``text_columns`` columns stand left and whose others stand right."""
    ruler = ["---" if i < text_columns else "--:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *lines))


def filled(template: str, values: Mapping[str, str]) -> str:
    """A file of ``templates`` with values for names in braces; parts with an empty one are left out."""
    text = (TEMPLATES / f"{template}.md").read_text(encoding="utf-8").rstrip()
    parts = [
        part.format_map(values)
        for part in text.split(_NEXT_PART)
        if all(values[name] for name in re.findall(r"{(\w+)}", part))
    ]
    return "\n\n".join(parts)


def with_section(page: str, text: str, begin: str, end: str) -> str:
    """``page`` with ``text`` between the markers, which are added at its end if absent.

    Raises:
        ValueError: the markers do not stand once each, in order.
    """
    block = f"{begin}\n\n{text}\n\n{end}"
    if begin not in page and end not in page:
        return f"{page.rstrip()}\n\n{block}\n"
    if (page.count(begin), page.count(end)) != (1, 1) or page.index(begin) > page.index(end):
        raise ValueError(f"the page must have {begin} and {end} once each, in this order")
    before, rest = page.split(begin)
    return before + block + rest.split(end)[1]
