"""What an sdist holds, how it is put in its place, and pyproject.toml: without making one.

tests/test_wheels.py makes it, and wheels of it.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "csrc"))
import wheels  # noqa: E402


def own_folders() -> set[str]:
    """Folders of the root that a test, a benchmark or an example imports something of."""
    found = set()
    for folder in ("tests", "benchmarks", "examples", "csrc"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= {*re.findall(r"^(?:from|import) (\w+)", text, flags=re.MULTILINE)}
    return {name for name in found if (ROOT / name).is_dir() and name != "build"}


def test_the_sdist_holds_what_its_tests_import() -> None:
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    grafted = {line.split()[1] for line in lines if line.startswith("graft ")}
    packages = {"lares", "lares_kernels"}
    assert own_folders() > packages  # the search finds what is there
    assert own_folders() - packages <= grafted
    assert grafted >= {"csrc", "docs", "examples", "tests", "benchmarks"}


@pytest.mark.parametrize("again", [False, True], ids=["new", "replaced"])
def test_the_sdist_may_go_to_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    def make_sdist(folder: Path) -> Path:
        (folder / "a.tar.gz").write_bytes(b"made")
        return folder / "a.tar.gz"

    def across(rename, source: object, target: object, **places: int) -> None:
        if Path(os.fspath(source)).parent != Path(os.fspath(target)).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link", source, None, target)
        rename(source, target, **places)

    for name in ("rename", "replace"):
        rename = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, rename=rename: across(rename, *given))
    monkeypatch.setattr(wheels, "make_sdist", make_sdist)
    if again:
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist" / "a.tar.gz").write_bytes(b"of before")
    wheels.main([str(tmp_path / "dist"), "--only", "sdist"])
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["a.tar.gz"]
    assert (tmp_path / "dist" / "a.tar.gz").read_bytes() == b"made"


def test_every_marker_is_declared_once(pytestconfig: pytest.Config) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^markers = \[\n(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)
    names = re.findall(r'^ *"(\w+):', block, flags=re.MULTILINE)
    assert {"gpu", "long", "sanitizer"} <= {*names}
    assert len(names) == len({*names})


def test_no_program_is_trusted_to_print_utf8() -> None:
    places = [ROOT / "setup.py"]
    for folder in ("lares", "lares_kernels", "csrc", "benchmarks"):
        places += (ROOT / folder).rglob("*.py")
    found = []
    for path in places:
        text = path.read_text(encoding="utf-8")
        if "text=True" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            named = {word.arg for word in node.keywords} if isinstance(node, ast.Call) else set()
            if "text" in named and "errors" not in named:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
