"""What mkdocs is told of the tree: the navigation, pages outside of docs/, the API's pages, links.

The home page is README.md, and docs/README.md, every page by what it is for, is the navigation. What
pages link to outside of docs/ is part of the site at its own path: Markdown and notebooks as pages,
other text as a page with its lines. So links are those that GitHub follows.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from website import anchors, api, navigation, notebooks  # noqa: E402

HOME, CONTENTS = "README.md", "docs/README.md"
# Paths in the site that are not those in docs/, by path in the tree.
_PLACES = {HOME: "index.md", CONTENTS: "contents.md"}
_LANGUAGES = {"": "text", "hpp": "cpp", "h": "c", "cu": "cpp", "py": "python", "yml": "yaml"}
_PAGES = (".md", ".ipynb")
_AS_THEY_ARE = {".md", ".csv", ".png", ".svg"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the navigation from docs/README.md, and anchors as GitHub makes them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = anchors.slug
    sections: list[Any] = [{"Home": _PLACES[HOME]}]
    for title, entries in navigation.sections((ROOT / CONTENTS).read_text(encoding="utf-8")):
        pages: list[Any] = [
            {entry.title: _place(posixpath.normpath(f"docs/{entry.path}"))} for entry in entries
        ]
        if title == "Reference":
            pages.append({"Python API": [{PurePosixPath(page).stem: page} for page in api.pages()]})
        sections.append({title: pages})
    config.nav = [*sections, {"All pages": _PLACES[CONTENTS]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the site has and docs/ has not."""
    contents = files.get_file_from_path("README.md")
    if contents is not None:
        files.remove(contents)
    for path in sorted(_linked() | {f"docs/{notebook}" for notebook in _notebooks(files)}):
        files.append(_file(config, path))
    for path, text in api.pages().items():
        files.append(File.generated(config, path, content=text))
    for name in ("style.css", "iframe-worker.js", "favicon.svg"):
        path = str(ROOT / "website" / "assets" / name)
        files.append(File.generated(config, f"assets/{name}", abs_src_path=path))
    return files


def _notebooks(files: Files) -> list[str]:
    return [file.src_uri for file in files if file.src_uri.endswith(".ipynb")]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their files are in the site."""
    source = _source_of(page.file.src_uri)
    if source is None:
        return markdown
    change = {}
    for path, anchor in anchors.links(markdown):
        target = _target(source, path)
        if target is not None:
            to = posixpath.relpath(_place(target), posixpath.dirname(page.file.src_uri) or ".")
            hashed = f"#{anchor}" if anchor else ""
            change[path + hashed] = to + hashed
    return anchors.with_links(markdown, change)


def on_page_content(html: str, **_: Any) -> str:
    """Keep an option's hyphens with its name where a line ends."""

    def kept(code: re.Match[str]) -> str:
        return re.sub(r"(?<![\w-])(--?\w)", r'<span class="hyphens">\1</span>', code[0])

    return re.sub(r"<code>[^<]*</code>", kept, html)


def _linked() -> set[str]:
    """Return files outside of docs/ that pages link to, by way of each other; and both pages above."""
    found: set[str] = {HOME, CONTENTS}
    docs = ROOT / "docs"
    left = [file.relative_to(ROOT).as_posix() for file in docs.rglob("*") if file.suffix in _PAGES]
    left.append(HOME)
    while left:
        source = left.pop()
        for path, _ in anchors.links(_markdown(source)):
            target = _target(source, path)
            if target is not None and not target.startswith("docs/") and target not in found:
                found.add(target)
                left += [target] if PurePosixPath(target).suffix in _PAGES else []
    return found


def _markdown(path: str) -> str:
    """Return the Markdown of a page of the tree: a notebook's, code as a page of its lines."""
    text = (ROOT / path).read_text(encoding="utf-8")
    suffix = PurePosixPath(path).suffix[1:]
    if suffix == "md":
        return text
    if suffix == "ipynb":
        return notebooks.page(text)
    return f"# {path}\n\n{notebooks.fenced(text, _LANGUAGES.get(suffix, suffix))}\n"


def _target(source: str, link: str) -> str | None:
    """Return the path in the tree of what a page links to, None where there is no such file.

    Raises:
        PluginError: it is a folder.
    """
    path = Path(os.path.normpath(ROOT / posixpath.dirname(source) / link))
    if link and path.is_dir():
        raise PluginError(f"{source} links to the folder {link}; the site needs a file")
    return (
        path.relative_to(ROOT).as_posix() if path.is_file() and path.is_relative_to(ROOT) else None
    )


def _place(path: str) -> str:
    """Return the path in the site of a file of the tree."""
    if path in _PLACES:
        return _PLACES[path]
    if path.endswith(".ipynb"):
        path = str(PurePosixPath(path).with_suffix(".md"))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if PurePosixPath(path).suffix in _AS_THEY_ARE else f"{path}.md"


def _source_of(place: str) -> str | None:
    """Return the path in the tree of a page of the site, None of one that is made."""
    for path, other in _PLACES.items():
        if place == other:
            return path
    notebook = str(PurePosixPath(place).with_suffix(".ipynb"))
    paths = (f"docs/{place}", place, f"docs/{notebook}", notebook)
    return next((path for path in paths if (ROOT / path).is_file()), None)


def _file(config: MkDocsConfig, path: str) -> File:
    place, level = _place(path), InclusionLevel.NOT_IN_NAV
    if PurePosixPath(path).suffix in _AS_THEY_ARE:
        return File.generated(config, place, abs_src_path=str(ROOT / path), inclusion=level)
    return File.generated(config, place, content=_markdown(path), inclusion=level)
