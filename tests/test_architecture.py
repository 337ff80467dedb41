"""The shape of the code: who imports whom, how long files are, what they may not say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("lares", "lares_kernels")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Inside lares each layer may use those to its right.
LAYERS = ("cli", "training", "evaluation", "integrations", "objectives", "data", "model")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, inside functions too, but not for type checkers alone."""
    names = {module_name(module) for module in MODULES}
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            # Taking a submodule out of a package is not an import of the package's own names.
            found |= inner & names if inner <= names else inner | {node.module or ""}
    return {name for name in found if name in names}


def test_the_kernels_know_no_recommender() -> None:
    for path in MODULES:
        if module_name(path).startswith("lares_kernels"):
            assert all(name.startswith("lares_kernels") for name in imports(path)), path


def test_the_recommender_knows_no_backend() -> None:
    private = {
        f"lares_kernels.{name}"
        for name in (
            "backends",
            "backward",
            "recurrence",
            "cpu",
            "cpu_library",
            "equations",
            "function",
        )
    }
    for path in MODULES:
        if not module_name(path).startswith("lares_kernels"):
            assert not imports(path) & private, path


def test_the_registry_knows_no_backend() -> None:
    """The module of each registers it; the registry names one module that imports those of ours."""
    by_name = {module_name(path): path for path in MODULES}
    registering = {
        name for name, path in by_name.items() if re.search(r"^register", path.read_text(), re.M)
    }
    assert len(registering) == 7
    assert imports(by_name["lares_kernels.own_backends"]) == registering
    seen = {"lares_kernels.backends"}
    left = [*seen]
    while left:
        found = imports(by_name[left.pop()]) - seen
        seen |= found
        left += found
    assert not seen & (registering | {"lares_kernels.own_backends"})


def test_no_circles() -> None:
    graph = {module_name(path): imports(path) - {module_name(path)} for path in MODULES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_layers_of_the_recommender(layer: int) -> None:
    above = tuple(f"lares.{name}" for name in LAYERS[:layer])
    for path in MODULES:
        if module_name(path).startswith(f"lares.{LAYERS[layer]}"):
            wrong = [name for name in imports(path) if above and name.startswith(above)]
            assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_are_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
