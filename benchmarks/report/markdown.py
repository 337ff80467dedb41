"""Markdown: tables, templates, and parts of a page between markers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
_NEXT_PART = "\n\n<!-- part -->\n\n"
_TABLE = re.compile(r"^(\| .+ \|)\n\| [-:| ]+ \|\n{(\w+)}$", re.MULTILINE)
_CELL = re.compile(r" = [^|]+(?= \|)")  # which its column's header does not show


def table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def filled(
    template: str,
    values: Mapping[str, str],
    lines: Callable[[str, list[str]], Iterable[Sequence[str]]] = lambda name, columns: (),
) -> str:
    """A file of ``templates`` with values for names in braces; parts with an empty one are left out.

    Args:
        template: name of the file.
        values: by name.
        lines: gives the cells of a table by its name, which stands in braces below its header and
            ruler, and by its columns: what the header says, or what it has behind a ``=``.
    """
    text = (TEMPLATES / f"{template}.md").read_text(encoding="utf-8").rstrip()
    parts = []
    for part in text.split(_NEXT_PART):
        found = dict(values)
        for header, name in _TABLE.findall(part):
            columns = [column.split(" = ")[-1] for column in header.strip("| ").split(" | ")]
            found[name] = "\n".join(map(table_line, lines(name, columns)))
            part = part.replace(header, _CELL.sub("", header))
        if all(found[name] for name in re.findall(r"{(\w+)}", part)):
            parts.append(part.format_map(found))
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
