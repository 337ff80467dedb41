"""Statistics of data as a picture."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lares.data.statistics import Statistics
from lares.files import atomic_write

_BARS = 40


def plot_statistics(statistics: Statistics, path: Path, title: str) -> None:
    """Draw how long histories are, how popular items, and how many interactions few items have.

    Args:
        statistics: of the data.
        path: of the picture, written whole; its suffix, as .png, .svg or .pdf, is its form.
        title: over the picture.
    """
    # Imported here: it takes a while, and describing data needs none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        title.encode(errors="replace").decode(), parse_math=False
    )  # names may be no text
    lengths, popularity, shares = figure.subplots(1, 3)

    longest = int(statistics.lengths.max())
    edges = np.unique(np.geomspace(2, longest + 1, _BARS + 1).round())
    lengths.hist(statistics.lengths, bins=edges, edgecolor="white", linewidth=0.3)
    median = float(np.median(statistics.lengths))
    lengths.axvline(median, color="grey", linestyle="--", label=f"median {median:.0f}")
    lengths.set(xscale="log", xlabel="items of a history", ylabel="users", title="History length")
    lengths.legend()

    counts = statistics.counts[statistics.counts > 0]
    popularity.plot(np.arange(1, len(counts) + 1), counts)
    popularity.set(
        xscale="log",
        yscale="log",
        xlabel="rank of the item",
        ylabel="interactions",
        title="Popularity",
    )

    share = np.arange(1, len(statistics.counts) + 1) / len(statistics.counts)
    of_all = np.cumsum(statistics.counts) / statistics.counts.sum()
    shares.plot(100 * share, 100 * of_all, label=f"Gini {statistics.gini():.2f}")
    shares.plot([0, 100], [0, 100], color="grey", linestyle="--", label="all alike")
    shares.set(
        xlabel="% of the items, most popular first",
        ylabel="% of the interactions",
        title=f"Repeats: {statistics.repeated:.1%} of the interactions",
    )
    shares.legend()
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph", UserWarning
        )  # its fonts lack a letter of the title
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=120)
