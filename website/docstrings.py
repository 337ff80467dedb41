"""What griffe, which reads the source, makes of ours: roles, entries of several names, options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

from website.api import ROLE

_SECTION = re.compile(r"^(Args|Attributes):$")
_SEVERAL = re.compile(r"^    (\w+(?:, \w+)+): ")


class Docstrings(griffe.Extension):
    """Make roles links of the site, and an entry about several names an entry for each."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what was read."""
        if obj.docstring:
            text = "\n".join(_one_name_each(obj.docstring.value.splitlines()))
            obj.docstring.value = ROLE.sub(lambda role: _link(obj, role[1]), text)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Show an option's default without its bounds: ``option(4, whole_in(2))`` is 4."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            attr.value = value.arguments[0]


def _one_name_each(lines: list[str]) -> Iterator[str]:
    """Yield the lines; ``q1, q3: quartiles`` of arguments or attributes becomes two entries.

    The second refers to the first, whose text is about both.
    """
    inside, left = False, []
    for line in [*lines, ""]:
        if left and not line.startswith("     "):
            yield from left
            left = []
        if line and not line.startswith(" "):
            inside = bool(_SECTION.match(line))
        found = _SEVERAL.match(line) if inside else None
        if found:
            first, *others = found[1].split(", ")
            line = f"    {first}: {line[found.end() :]}"
            left = [f"    {name}: see ``{first}``." for name in others]
        yield line


def _link(obj: griffe.Object, name: str) -> str:
    try:
        path = obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref optional identifier="{path}"><code>{name}</code></autoref>'
