"""Pictures of several plots: how they begin, their colours, and how they come to their file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from lares.files import atomic_write

FORMS = (".png", ".svg", ".pdf")  # suffixes of files for pictures
_GAP = 1.0  # inches between plots, for the labels of their axes
# Lines that are drawn together, in this order; grey is what they are held to.
PALETTE = ("#3b82c4", "#dd7a1f", "#2f9e6e", "#8f6cc4", "#d4505f", "#cc5a9d", "#8a6d3b")
GREY, INK, FAINT = "#858d99", "#1f2733", "#c8ced8"


def three_plots(title: str) -> tuple[Any, tuple[Any, Any, Any]]:
    """Return a figure that needs no display, with ``title`` over it, and its three axes in a row."""
    figure, (first, second, third) = plots(title, 1, 3)
    return figure, (first, second, third)


def plots(title: str, n_rows: int, n_columns: int) -> tuple[Any, list[Any]]:
    """Return a figure that needs no display, with ``title`` over it, and its axes row by row."""
    # Imported here: it takes a while, and most commands draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = 4.0 * n_columns, 3.4 * n_rows + 0.4
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Room for labels by measure: to find it out takes as long as all the drawing.
    beside, above = _margins(width, n_columns, 0.75, 0.2), _margins(height, n_rows, 0.7, 0.75)
    figure.subplots_adjust(
        left=beside.first,
        right=1 - beside.last,
        wspace=beside.between,
        bottom=above.first,
        top=1 - above.last,
        hspace=above.between,
    )
    figure.suptitle(as_text(title), parse_math=False, color=INK)
    all_axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for axes in all_axes:
        axes.set_prop_cycle(color=PALETTE)
        axes.set_axisbelow(True)
        axes.grid(color=FAINT, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(color=FAINT, labelcolor=INK, labelsize=9)
    return figure, all_axes


class _Margins(NamedTuple):
    """Hold margins as shares of the whole, and the gap between plots as one of a plot's size."""

    first: float
    last: float
    between: float


def _margins(size: float, n: int, first: float, last: float) -> _Margins:
    """Return the margins of ``n`` plots along ``size`` inches, given those at both ends in inches."""
    plot = (size - first - last - _GAP * (n - 1)) / n
    return _Margins(first / size, last / size, _GAP / plot)


def as_text(name: str) -> str:
    """Return a name, which may be no text, as it can be drawn; draw it with ``parse_math=False``: a
    dollar in it is no formula."""
    return name.encode(errors="replace").decode()


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure whole or not at all; the suffix of ``path``, one of ``FORMS``, is its form.

    The same figure gives the same bytes.
    """
    import matplotlib as mpl

    form = path.suffix[1:].lower()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with (
        atomic_write(path) as temporary,
        warnings.catch_warnings(),
        mpl.rc_context({"svg.hashsalt": "lares"}),
    ):
        # Its fonts lack a letter of the title.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(temporary, format=form, dpi=120, metadata=metadata)
