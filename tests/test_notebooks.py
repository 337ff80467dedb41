"""What the notebooks show does run, and what they import is there."""

from __future__ import annotations

import ast
import importlib
import json
import re
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.tools import cannot_run
from website.anchors import anchors, links
from website.notebooks import page
from website.run_notebooks import NOTEBOOKS, executed

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
# Texts that outputs must have, by notebook.
SHOWN = {
    "csv_to_recommendations": (
        "--data.drop_missing true leaves such rows out",
        "77 of 3,992 rows are repeats",
        "epoch   2  loss",
        "image/png",
        "(2000, 400)",
        "True",
    ),
    "sasrec_swap": (
        "<All keys matched successfully>",
        "same ten best items True",
        "lares_kernels::refine_backward                1",
        "RefineFunction                                1",
        "8 steps",
    ),
}
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_of(path: Path) -> str:
    """The Python of all cells; commands of a shell, which IPython knows, are left out."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^!.*$", "", code, flags=re.MULTILINE)


def is_ours(module: str | None) -> bool:
    return (module or "").split(".")[0] in ("lares", "lares_kernels")


def modules_of(tree: ast.AST) -> Iterator[tuple[str, types.ModuleType]]:
    """Our modules by the names that code has for them; a name that is not there raises."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_ours(alias.name):
                    module = importlib.import_module(alias.name)
                    yield alias.asname or alias.name, module
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module):
            for alias in node.names:
                if find_spec(f"{node.module}.{alias.name}") is not None:
                    module = importlib.import_module(f"{node.module}.{alias.name}")
                    yield alias.asname or alias.name, module
                else:
                    getattr(importlib.import_module(str(node.module)), alias.name)


@every_notebook
def test_code_is_python_and_has_names_that_there_are(path: Path) -> None:
    tree = ast.parse(code_of(path))
    modules = dict(modules_of(tree))
    assert modules or "from lares import" in code_of(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), ast.unparse(node)


@every_notebook
def test_every_cell_was_run_and_none_failed(path: Path) -> None:
    """Stored outputs are those of one run, from the first cell to the last."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == [*range(1, len(counts) + 1)]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert path.stat().st_size < 300_000


@every_notebook
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(page(path.read_text("utf-8"))):
        target = (path.parent / link.path).resolve()
        assert target.is_file(), link
        assert not link.anchor or link.anchor in anchors(target.read_text("utf-8")), link


@pytest.mark.long
@every_notebook
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        cannot_run("notebooks need the extra docs")
    pytest.importorskip("pandas")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests have the other processors
    notebook = executed(path, tmp_path)
    outputs: list[Any] = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    warned = [output for output in outputs if output.get("name") == "stderr"]
    assert not warned
    for text in SHOWN[path.stem]:
        assert text in str(outputs), text
