"""Notebooks as pages: their text, their code, and what the code gave when they were last run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def page(notebook: str) -> str:
    """Return the Markdown of a notebook, given as the text of its file (nbformat 4).

    Pictures become part of the page; of an output that has several forms a picture is taken, else its
    plain text.

    Raises:
        ValueError: the text is no notebook of that format.
    """
    content = json.loads(notebook)
    if not isinstance(content, dict) or content.get("nbformat") != 4:
        raise ValueError("a notebook of nbformat 4 is wanted")
    parts = (part for cell in content["cells"] for part in _parts(cell))
    return "\n\n".join(part for part in parts if part) + "\n"


def _parts(cell: Mapping[str, Any]) -> Iterator[str]:
    source = _text(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
    elif cell["cell_type"] == "code":
        yield fenced(source, "python")
        for output in cell["outputs"]:
            yield _shown(output)


def _shown(output: Mapping[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![output](data:image/png;base64,{_text(data['image/png']).replace(chr(10), '')})"
    if output["output_type"] == "error":
        return fenced("\n".join(output["traceback"]), "text")
    return fenced(_text(output.get("text", data.get("text/plain", ""))), "text")


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def fenced(text: str, language: str) -> str:
    """Return text as a block of code, empty where there is none."""
    text = _ANSI.sub("", text).strip("\n")
    fence = "`" * (max((len(ticks) for ticks in re.findall("`{3,}", text)), default=2) + 1)
    return f"{fence}{language}\n{text}\n{fence}" if text else ""
