"""The site has every page and every public name, and is built without a warning."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.kernels.tools import cannot_run
from website import api, navigation

ROOT = Path(__file__).parents[2]


def test_the_navigation_has_every_page_once() -> None:
    contents = (ROOT / "docs" / "README.md").read_text("utf-8")
    found = [entry.path for _, entries in navigation.sections(contents) for entry in entries]
    assert len(found) == len(set(found))
    docs = ROOT / "docs"
    files = [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]
    pages = {path.relative_to(docs).as_posix() for path in files}
    assert pages - {"README.md"} == {path for path in found if not path.startswith("../")}


def test_an_entry_outside_of_a_section_is_told() -> None:
    with pytest.raises(ValueError, match=r"a\.md.*stands in no section"):
        navigation.sections("# All\n\n- [A](a.md): what\n")


@pytest.mark.parametrize("module", ["lares", "lares.model", "lares.data", "lares_kernels"])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    shown = {
        api.home(of, name)
        for parts in api.documented().values()
        for of, names in parts
        for name in names
    }
    package = importlib.import_module(module)
    for name in package.__all__:
        if find_spec(f"{module}.{name}") is None:
            assert api.home(module, name) in shown, name
    assert set(api.public_names(module)) == set(package.__all__)


def test_a_name_is_documented_where_it_is_defined() -> None:
    assert api.home("lares", "LaresModel") == "lares.model.model.LaresModel"
    assert api.home("lares_kernels", "refine") == "lares_kernels.function.refine"


@pytest.mark.long
def test_it_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    """Where a link, an anchor or the name of an argument in a docstring is wrong there is no site."""
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        cannot_run("the site needs the extra docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # a notice of the theme's, of no page
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    pages = [*tmp_path.rglob("*.html")]
    assert {"index.html", "contents.html"} < {page.name for page in pages}
    fetched = re.compile(
        r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\s>]+"
    )
    for page in pages:
        assert not fetched.findall(page.read_text("utf-8")), page
    reference = (tmp_path / "reference" / "api" / "lares_kernels.html").read_text("utf-8")
    assert 'id="lares_kernels.refine"' in reference
    assert ":class:" not in reference
    assert "(B, L, d)" in reference, "shapes are shown"
