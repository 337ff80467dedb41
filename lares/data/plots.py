"""Statistics of data as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lares.data.statistics import Statistics
from lares.pictures import GREY, three_plots, write_figure

_BARS = 40


def plot_statistics(statistics: Statistics, path: Path, title: str) -> None:
    """Draw how long histories are, how popular items, and how many interactions few items have.

    Args:
        statistics: of the data.
        path: of the picture, written whole; its suffix, as .png, .svg or .pdf, is its form.
        title: over the picture.
    """
    figure, (lengths, popularity, shares) = three_plots(title)

    longest = int(statistics.lengths.max())
    edges = np.unique(np.geomspace(2, longest + 1, _BARS + 1).round())
    lengths.hist(statistics.lengths, bins=edges, edgecolor="white", linewidth=0.3)
    median = float(np.median(statistics.lengths))
    lengths.axvline(median, color=GREY, linestyle="--", label=f"median {median:.0f}")
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
    shares.plot([0, 100], [0, 100], color=GREY, linestyle="--", label="all alike")
    shares.set(
        xlabel="% of the items, most popular first",
        ylabel="% of the interactions",
        title=f"Repeats: {statistics.repeated:.1%} of the interactions",
    )
    shares.legend()
    write_figure(figure, path)
