"""SVG in a few words: boxes, texts and arrows in the palette of the plots."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

from benchmarks.report.palette import BLUE, FONTS, GREEN, ORANGE, style_sheet
from lares.pictures import GREY

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
COLOURS = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "grey": GREY}
_STYLE = (
    "text{fill:var(--ink);font-size:15px}.small{font-size:13px}.bold{font-weight:600}"
    ".title{font-size:17px;font-weight:600}.middle{text-anchor:middle}.end{text-anchor:end}"
    ".mono{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:14px}"
    ".box{fill:var(--ground);stroke:var(--faint);stroke-width:1.2}"
    ".ground{fill:var(--ground)}.panel{fill:var(--panel);stroke:none}"
    ".line{fill:none;stroke-width:1.8}.dashed{stroke-dasharray:5 4}"
    + "".join(
        f".fill-{name}{{fill:{value};fill-opacity:.16;stroke:{value};stroke-width:1.5}}"
        f".line-{name}{{stroke:{value}}}.head-{name}{{fill:{value}}}"
        for name, value in COLOURS.items()
    )
)


class Box(NamedTuple):
    """A rectangle: its left upper corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def right(self) -> float:
        return self.x + self.width


class Drawing:
    """Parts of a picture in the order in which they are painted."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.parts: list[str] = []

    def box(self, box: Box, kind: str = "box", radius: int = 6) -> Box:
        """Paint a rectangle of a kind: ``box``, ``panel`` or ``fill-COLOUR``."""
        x, y, width, height = map(_number, box)
        self.parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'
        )
        return box

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Paint a line of text; ``kind`` has names of classes."""
        self.parts.append(
            f'<text class="{kind}" x="{_number(x)}" y="{_number(y)}">{escape(text)}</text>'
        )

    def labelled(self, box: Box, label: str, kind: str = "box", text_kind: str = "") -> Box:
        """Paint a rectangle with a text, of several lines if it has breaks, in its middle."""
        self.box(box, kind)
        lines = label.split("\n")
        for i, line in enumerate(lines):
            y = box.y + box.height / 2 + 5 + 17 * (i - (len(lines) - 1) / 2)
            self.text(box.middle, y, line, f"middle {text_kind}".strip())
        return box

    def arrow(
        self, points: list[tuple[float, float]], colour: str = "grey", dashed: bool = False
    ) -> None:
        """Paint a line through points, with a head at its end."""
        path = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        kind = f"line line-{colour}" + (" dashed" if dashed else "")
        self.parts.append(f'<path class="{kind}" d="{path}" marker-end="url(#{colour})"/>')

    def svg(self) -> str:
        """The picture with its ground, which follows the reader's light or dark."""
        width, height = self.size
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            f'markerHeight="7" orient="auto-start-reverse"><path class="head-{name}" '
            'd="M0 0L10 5L0 10z"/></marker>'
            for name in COLOURS
        )
        fonts = FONTS.replace('"', "'")
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="{fonts}">'
        )
        return "\n".join(
            [
                head,
                f"<title>{escape(self.title)}</title>",
                f"<style>{style_sheet()}{_STYLE}</style>",
                f"<defs>{heads}</defs>",
                f'<rect width="{width}" height="{height}" rx="8" fill="var(--ground)"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
