"""Pictures of three plots in a row: how they begin, and how they come to their file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lares.files import atomic_write


def three_plots(title: str) -> tuple[Any, tuple[Any, Any, Any]]:
    """Return a figure that needs no display, with ``title`` over it, and its three axes."""
    # Imported here: it takes a while, and most commands draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    # Names may be no text, and a dollar in one is no formula.
    figure.suptitle(title.encode(errors="replace").decode(), parse_math=False)
    first, second, third = figure.subplots(1, 3)
    return figure, (first, second, third)


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure whole or not at all; the suffix of ``path``, .png, .svg or .pdf, is its form."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # Its fonts lack a letter of the title.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=120)
