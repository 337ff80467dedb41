"""The shape of the code: who imports whom, how long files are, what they may not say."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "lares", "lares_kernels", "website")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = [path.parent for path in MODULES if path.name == "__init__.py"]
# Inside lares each folder may use those to its right.
FLOORS = (
    *("cli", "recommender", "training", "evaluation", "integrations", "objectives", "model"),
    "data",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(module) for module in MODULES}


def room_of(name: str, folder: Path) -> str:
    """The file or folder in ``folder`` that a module lies in; empty for the folder's own and others."""
    package = module_name(folder / "__init__.py")
    return name[len(package) + 1 :].split(".")[0] if name.startswith(f"{package}.") else ""


@functools.cache
def imports(path: Path, typing: bool = False) -> set[str]:
    """Modules of ours that a file imports, inside functions too; ``typing``: for type checkers, too."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and getattr(node.test, "id", "") == "TYPE_CHECKING"
        and not typing
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
            found |= inner & NAMES if inner <= NAMES else inner | {node.module or ""}
    return found & NAMES


def test_the_kernels_know_no_recommender() -> None:
    for path in MODULES:
        if module_name(path).startswith("lares_kernels"):
            assert all(name.startswith("lares_kernels") for name in imports(path)), path


def test_the_recommender_knows_no_backend() -> None:
    public = {"", "catalogue", "common", "interop", "machine", "spec"}
    for path in MODULES:
        if module_name(path).split(".")[0] == "lares":
            rooms = {room_of(name, ROOT / "lares_kernels") for name in imports(path)}
            assert rooms <= public, path


def test_the_registry_knows_no_backend() -> None:
    """The module of each registers it; the registry names one module that imports those of ours."""
    by_name = {module_name(path): path for path in MODULES}
    registering = {
        name for name, path in by_name.items() if re.search(r"^register", path.read_text(), re.M)
    }
    assert len(registering) == 7
    assert imports(by_name["lares_kernels.own_backends"]) == registering
    seen = {"lares_kernels.registry.backends"}
    left = [*seen]
    while left:
        found = imports(by_name[left.pop()]) - seen
        seen |= found
        left += found
    assert not seen & (registering | {"lares_kernels.own_backends"})


def assert_one_way(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_circles() -> None:
    assert_one_way({module_name(path): imports(path) - {module_name(path)} for path in MODULES})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_circles_of_rooms(folder: Path) -> None:
    """What lies in a folder, files and folders, imports one way, for type checkers too."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        if folder in path.parents:
            mine = room_of(module_name(path), folder)
            others = {room_of(name, folder) for name in imports(path, typing=True)}
            graph.setdefault(mine, set()).update(others - {mine, ""})
    assert_one_way(graph)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_floors_of_the_recommender(path: Path) -> None:
    """A folder of ``lares`` imports those below it; single files stand on the ground."""
    mine = room_of(module_name(path), ROOT / "lares")
    if module_name(path).split(".")[0] == "lares" and mine not in ("", "__main__"):
        floor = FLOORS.index(mine) if mine in FLOORS else len(FLOORS)
        above = {room_of(name, ROOT / "lares") for name in imports(path)} & set(FLOORS[:floor])
        assert not above, f"{path} imports {above}"


def test_tests_mirror_the_tree() -> None:
    """A folder of tests is named like that of what it tests: in ``lares``, in ``lares_kernels`` (whose
    tests are ``kernels``), or beside them. What an interpreter runs is a folder of its own."""
    others = {"fuzz", "saved"}
    for file in (ROOT / "tests").rglob("__init__.py"):
        folder = file.parent.relative_to(ROOT / "tests")
        if not folder.parts or folder.parts[0] in others or folder.name == "interpreted":
            continue
        roots = (ROOT, ROOT / "lares")
        if folder.parts[0] == "kernels":
            roots, folder = (ROOT / "lares_kernels",), folder.relative_to("kernels")
        assert any((root / folder).is_dir() for root in roots), folder


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_are_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
