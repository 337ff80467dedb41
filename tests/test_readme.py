"""What the README shows does run."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pyarrow
import pyarrow.csv
import pytest
import torch

from lares.cli import main
from website.anchors import anchors, links

ROOT = Path(__file__).parent.parent
# Twenty users who go on from item to item, each in steps of their own.
WALKS = {
    "user_id": [user for user in ("anna", "bo", *range(18)) for _ in range(9)],
    "item_id": [f"film {(3 * u + u % 3 * n) % 20}" for u in range(20) for n in range(9)],
    "timestamp": [*range(180)],
}
WALKS["user_id"] = list(map(str, WALKS["user_id"]))


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


BLOCKS = blocks("README.md")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_python_blocks(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "hidden": torch.randn(2, 5, 64),
        "lengths": torch.tensor([5, 2]),
        "step": 1,
        "item_embedding": torch.nn.Embedding(30, 64),
        "interactions": WALKS,
    }
    exec(block, given)


def typed(page: str) -> list[str]:
    """The lines of a page's shell blocks that begin with lares, without their comments."""
    shell = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = [line for block in shell for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("lares ")]


def test_shell_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run one after the other, on a file of that name; the demo has tests of its own."""
    monkeypatch.chdir(tmp_path)
    pyarrow.csv.write_csv(pyarrow.table(WALKS), "interactions.csv")
    lines = [line for line in typed("README.md") if line != "lares demo"]
    assert len(lines) >= 6
    for line in lines:
        quick = " --trainer.max_epochs 1 --no_progress" if line.startswith("lares train") else ""
        main(shlex.split(line + quick)[1:])
    assert Path("recs.csv").read_text().startswith("user,item,score,rank\n")
    assert Path("runs/interactions-lares/plot.png").is_file()


def test_the_page_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks run one after the other."""
    monkeypatch.chdir(tmp_path)
    given = {"interactions": WALKS}
    for block in blocks("docs/guide/python.md"):
        exec(block, given)


@pytest.mark.long
def test_the_page_of_hyper_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its search runs; of its trials two epochs of two."""
    optuna = pytest.importorskip("optuna")  # of the extra docs
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("docs/guide/hyperparameters.md")
    block = block.replace("n_trials=10", "n_trials=2").replace(
        '"max_epochs": 20', '"max_epochs": 2'
    )
    given = {"interactions": WALKS}
    exec(block, given)
    study = given["study"]
    assert len(study.trials) == 2
    assert 0 <= study.best_value <= 1


PAGES = [*ROOT.glob("*.md"), ROOT / "csrc" / "README.md", *(ROOT / "docs").rglob("*.md")]


@functools.cache
def anchors_of(page: Path) -> list[str]:
    return anchors(page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Pages, pictures and files that a page links to are there, and so is the heading behind a #."""
    for link in links(page.read_text("utf-8")):
        target = (page.parent / link.path).resolve() if link.path else page
        assert target.is_file(), f"{link.path}: no file, or a folder, which the site cannot show"
        if link.anchor:
            found = anchors_of(target).count(link.anchor)
            assert found, f"{link.path}#{link.anchor}: {target.name} has {anchors_of(target)}"
            assert found == 1, f"{link.path}#{link.anchor}: {found} headings of this name"


def test_paths_of_pages_are_there() -> None:
    """What code, comments and messages call ``docs/...`` is a file or a folder."""
    folders = (
        "benchmarks",
        "csrc",
        "docs",
        "examples",
        "lares",
        "lares_kernels",
        "tests",
        "website",
        ".github",
    )
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*")]
    kinds = (".md", ".py", ".hpp", ".cpp", ".cu", ".h", ".yaml", ".yml", ".toml", ".in")
    for file in [*files, *ROOT.glob("*.*")]:
        text = file.read_text("utf-8") if file.suffix in kinds and file.is_file() else ""
        for path in re.findall(r"(?<![\w/.])docs/[\w/]+\.(?:md|csv|png|svg)", text):
            assert (ROOT / path).exists(), f"{file.relative_to(ROOT)}: {path}"


def test_commands_are_there() -> None:
    """What pages, docstrings and programs run with ``-m`` is a module, or a package that runs."""
    folders = (
        "docs",
        "benchmarks",
        "lares",
        "lares_kernels",
        "csrc",
        "tests",
        "examples",
        "website",
    )
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*")]
    for file in [*files, *ROOT.glob("*.md")]:
        text = file.read_text("utf-8") if file.suffix in (".md", ".py") else ""
        for name in set(
            re.findall(r"""\s"?-m"?,?\s+"?((?:benchmarks|lares|tests|website)[.\w]*\w)""", text)
        ):
            found = importlib.util.find_spec(name)
            if found is not None and found.submodule_search_locations:
                found = importlib.util.find_spec(f"{name}.__main__")
            assert found is not None, f"{file.relative_to(ROOT)}: python -m {name}"


def test_every_page_is_linked() -> None:
    assert "](docs/README.md)" in (ROOT / "README.md").read_text()
    index = ROOT / "docs" / "README.md"
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(index.parent).as_posix()
        assert page == index or f"]({path})" in index.read_text(), path


def test_every_dependency_is_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    names = re.search(r"\ndependencies = \[(.*?)\n\]", project, flags=re.DOTALL)
    assert names is not None
    text = (ROOT / "docs" / "develop" / "dependencies.md").read_text()
    for name in re.findall(r'"([a-z-]+)', names.group(1)):
        assert f"| {name}" in text, name
