"""The colours of all plots and drawings, and how figures come to SVG files that read on light and dark.

A file has a ground of its own and follows the reader's system: its neutral colours are variables that
change with ``prefers-color-scheme``; those of the series stand out on both grounds.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lares.pictures import FAINT, INK, PALETTE

GROUND, PANEL = "#fdfdfb", "#eef1f5"
_NEUTRAL = {
    "ground": (GROUND, "#1b212b"),
    "ink": (INK, "#e3e8ef"),
    "faint": (FAINT, "#4a5463"),
    "panel": (PANEL, "#262e3a"),
}
BLUE, ORANGE, GREEN, PURPLE, RED, PINK, _ = PALETTE
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'
STYLE = {
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "font.family": "DejaVu Sans",  # matplotlib's own; what is measured by it is wide enough for others
    "svg.fonttype": "none",
    "svg.hashsalt": "lares",
}


def style_sheet() -> str:
    """The variables of the neutral colours, for light and dark."""
    light, dark = (
        "".join(f"--{name}:{shades[i]};" for name, shades in _NEUTRAL.items()) for i in (0, 1)
    )
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def themed(svg: str) -> str:
    """An SVG whose neutral colours follow the reader's system."""
    for name, (light, _) in _NEUTRAL.items():
        svg = svg.replace(light, f"var(--{name})")
    end = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:end]}\n<style>{style_sheet()}</style>{svg[end:]}"


def save_svg(figure: Any, path: Path) -> None:
    """Write a figure that was made under ``STYLE``; the same figure gives the same bytes."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    svg = text[text.index("<svg") :].replace("'DejaVu Sans'", FONTS.replace('"', "'"))
    path.write_text(themed("\n".join(map(str.rstrip, svg.splitlines())) + "\n"), encoding="utf-8")
