"""The drawings are what their scripts make of today's source and rows, and small."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from website.drawings.packages import (
    ACROSS,
    ARROWS,
    KERNELS,
    RECOMMENDER,
    SIDEWAYS,
    imports,
    packages,
    reduced,
)
from website.drawings.step import step
from website.drawings.svg import PICTURES

DOCS = Path(__file__).parents[2] / "docs"


def test_arrows_are_the_imports_that_follow_from_no_others() -> None:
    found = reduced(imports("lares", RECOMMENDER)) | reduced(imports("lares_kernels", KERNELS))
    assert {*ARROWS, *SIDEWAYS} == found, "change ARROWS of website/drawings/packages.py"


def test_arrows_across_packages_are_imports() -> None:
    for room, _ in ACROSS:
        texts = [path.read_text("utf-8") for path in (DOCS.parent / "lares" / room).rglob("*.py")]
        assert any("from lares_kernels" in text for text in texts), room


@pytest.mark.parametrize(("name", "draw"), [("step.svg", step), ("packages.svg", packages)])
def test_a_drawing_is_that_of_today(name: str, draw: Callable[[], str]) -> None:
    assert (PICTURES / name).read_text("utf-8") == draw(), "python -m website.drawings"


def test_pictures_are_small_and_whole() -> None:
    pictures = [*DOCS.rglob("*.svg"), *DOCS.rglob("*.png")]
    assert len(pictures) > 15
    for path in pictures:
        assert path.stat().st_size < 200_000, path
        if path.suffix == ".svg":
            ET.parse(path)
            assert "prefers-color-scheme:dark" in path.read_text("utf-8"), path
