"""The pages of the API reference: every public name, read from the source of its package."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
_INTEGRATIONS = ("sasrec", "recbole", "official", "faiss_index")
_OPTIONS = "DataOptions SamplingOptions OptimizerOptions TrainerOptions StartOptions"
_CONFIGS = "TrainConfig PosttrainConfig RptOptimizerOptions"
# By page: the modules whose public names it has. A name that several give is on the first page of them.
PAGES: Mapping[str, tuple[str, ...]] = {
    "lares": ("lares",),
    "lares.model": ("lares.model",),
    "lares.data": ("lares.data",),
    "lares.training": (
        "lares.training.config",
        "lares.objectives.spt.config",
        "lares.objectives.rpt.config",
    ),
    "lares.evaluation": ("lares.evaluation",),
    "lares.integrations": tuple(f"lares.integrations.{name}" for name in _INTEGRATIONS),
    "lares.errors": ("lares.errors",),
    "lares_kernels": ("lares_kernels",),
    "lares_kernels.backends": tuple(
        f"lares_kernels.{name}"
        for name in ("backends", "options", "parameters", "cpu_library", "errors")
    ),
}
# Where a module has names that are no users'.
_OF_MODULE = {"lares.training.config": f"{_CONFIGS} {_OPTIONS}".split()}
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([^`]+)`")


def file_of(module: str) -> Path | None:
    """Return the file of a module of ours."""
    path = ROOT.joinpath(*module.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
    return found[0] if found else None


@functools.cache
def _tree(module: str) -> ast.Module:
    file = file_of(module)
    if file is None:
        raise ValueError(f"there is no module {module}")
    return ast.parse(file.read_text(encoding="utf-8"))


def _literal(tree: ast.Module, name: str) -> list[str] | None:
    """Return the strings that a module assigns to a name, or a dict's keys; None if it does not."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            value = node.value
            items = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
            return [ast.literal_eval(item) for item in items if item is not None]
    return None


def public_names(module: str) -> list[str]:
    """Return what ``__all__`` says, else the public functions and classes that the module defines."""
    tree = _tree(module)
    if module in _OF_MODULE:
        return _OF_MODULE[module]
    names = _literal(tree, "__all__")
    if names == []:  # made of what is loaded on first use
        names = _literal(tree, "_HOMES")
    if names is None:
        kinds = (ast.FunctionDef, ast.ClassDef)
        names = [each.name for each in tree.body if isinstance(each, kinds)]
    return [name for name in names if not name.startswith("_")]


def home(module: str, name: str) -> str:
    """Return the path at which a name is defined, followed through imports."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name and file_of(node.module):
                    return home(node.module, alias.name)
    return f"{module}.{name}"


def documented() -> dict[str, list[tuple[str, list[str]]]]:
    """Return by page its modules, each with the names that the page has of it."""
    seen: set[str] = set()
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for page, modules in PAGES.items():
        found[page] = []
        for module in modules:
            names = []
            for name in public_names(module):
                path = home(module, name)
                if path not in seen and file_of(f"{module}.{name}") is None:
                    names.append(name)
                seen.add(path)
            found[page].append((module, names))
    return found


def without_roles(text: str) -> str:
    """Return a docstring's text with Sphinx's roles as code."""
    return ROLE.sub(lambda role: f"`{role[1]}`", text)


def pages() -> dict[str, str]:
    """Return the Markdown of every page by its path in the site."""
    return {
        f"reference/api/{page}.md": _page(page, modules) for page, modules in documented().items()
    }


def _page(title: str, modules: list[tuple[str, list[str]]]) -> str:
    parts = [f"# {title}"]
    level = 2 if len(modules) == 1 else 3
    for module, names in modules:
        if level == 3:
            parts.append(f"## {module}")
        parts.append(without_roles(ast.get_docstring(_tree(module)) or ""))
        parts += [
            f"::: {module}.{name}\n    options:\n      heading_level: {level}" for name in names
        ]
    return "\n\n".join(parts) + "\n"
