"""Docstrings of the product say what their subject does: they begin with no bare question or "Of"."""

from __future__ import annotations

import ast
from pathlib import Path

import lares

NO_SENTENCES = ("Of", "What", "Whether", "Where", "How")
FOLDER = Path(lares.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def test_no_docstring_is_a_fragment() -> None:
    found = [
        f"{path.relative_to(FOLDER)}: {text.splitlines()[0]}"
        for path in sorted(FOLDER.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
        if text.split(maxsplit=1)[0].strip(",:") in NO_SENTENCES
    ]
    assert not found, "\n".join(found)
