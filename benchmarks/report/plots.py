"""Plots of results: cost against depth, batch and length, and how the implementations compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases.op import Case
from benchmarks.report.results import Row
from benchmarks.report.tables import PASSES

mpl.use("Agg")

DPI = 120
COLOURS = {
    "plain": "tab:gray",
    "compiled": "tab:orange",
    "packed": "tab:green",
    "op:equations": "tab:purple",
    "op:reference": "tab:blue",
    "op:cpu": "tab:red",
}
MAIN = Case("main")
SHAPE = ("d_model", "n_heads", "d_ff", "n_layers", "steps", "batch", "max_length", "lengths")


def colour(implementation: str) -> str:
    return COLOURS.get(implementation, "black")


def like_main(row: Row, *varied: str) -> bool:
    """Whether a timed row has the main case's values but for those ``varied``."""
    return (
        row.median_us is not None
        and row.case != "avx2"  # that case differs in what no column says
        and (row.precision, row.threads) == ("fp32", 1)
        and all(getattr(row, name) == getattr(MAIN, name) for name in SHAPE if name not in varied)
    )


def compared(rows: Sequence[Row]) -> list[str]:
    """Plain and the op's fastest backend that has times."""
    found = {row.implementation for row in rows if row.median_us is not None}
    fastest = [name for name in ("op:cpu", "op:reference") if name in found]
    return ["plain", *fastest[:1]]


def _curve(
    axes: Axes, rows: Sequence[Row], x: str, y: Callable[[Row], float], label: str, style: str
) -> None:
    points = sorted({getattr(row, x): y(row) for row in rows}.items())
    if points:
        name = rows[0].implementation
        axes.plot(*zip(*points, strict=True), style, marker="o", color=colour(name), label=label)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def two_panels(title: str, xlabel: str, ylabel: str) -> tuple[Figure, dict[str, Axes]]:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = dict(zip(PASSES, figure.subplots(1, 2), strict=True))
    figure.suptitle(title, fontsize=11)
    for passes, axes in panels.items():
        axes.set_title(passes, fontsize=10)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
    return figure, panels


def milliseconds(row: Row) -> float:
    return (row.median_us or 0.0) / 1000


def microseconds_a_token(row: Row) -> float:
    return (row.median_us or 0.0) / (row.tokens or 1)


def _plot(
    rows: Sequence[Row],
    path: Path,
    what: str,
    units: tuple[str, str],
    curves: Callable[[Axes, list[Row], str], None],
    scale: Callable[[Axes], None],
) -> None:
    """Draw a panel for each pass, in it what ``curves`` makes of each implementation's rows."""
    figure, panels = two_panels(f"Cost against {what} (fp32, one thread)", *units)
    for passes, axes in panels.items():
        for name in compared(rows):
            chosen = [row for row in rows if (row.implementation, row.passes) == (name, passes)]
            curves(axes, chosen, name)
        scale(axes)
        _legend(axes)
    figure.savefig(path, dpi=DPI)


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log", base=4)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_yscale("log")


def _plot_calls(
    rows: Sequence[Row],
    path: Path,
    what: str,
    column: str,
    unit: str,
    scale: Callable[[Axes], None],
) -> None:
    def curves(axes: Axes, chosen: list[Row], name: str) -> None:
        near = [row for row in chosen if like_main(row, column)]
        _curve(axes, near, column, milliseconds, name, "-")

    _plot(rows, path, what, (unit, "milliseconds a call"), curves, scale)


def plot_steps(rows: Sequence[Row], path: Path) -> None:
    """Time against ``T``."""
    _plot_calls(rows, path, "depth", "steps", "steps T", _from_zero)


def plot_batch(rows: Sequence[Row], path: Path) -> None:
    """Time against the number of sequences, both on logarithmic axes."""
    _plot_calls(rows, path, "batch", "batch", "sequences B", _logarithmic)


def plot_length(rows: Sequence[Row], path: Path) -> None:
    """Time of a real token against the width of the batch, full and with short sequences."""

    def curves(axes: Axes, chosen: list[Row], name: str) -> None:
        timed = [
            row for row in chosen if row.case.startswith("length-") and row.median_us is not None
        ]
        for kind, style in (("full", "-"), ("geometric", "--")):
            of_kind = [row for row in timed if row.lengths == kind]
            label = f"{name}, {kind} lengths"
            _curve(axes, of_kind, "max_length", microseconds_a_token, label, style)

    units = ("longest sequence L", "microseconds a real token")
    _plot(rows, path, "length", units, curves, _from_zero)


def plot_ratios(rows: Sequence[Row], path: Path) -> None:
    """How many times as fast as plain each implementation is in the main case."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    main = [row for row in rows if row.case == "main" and row.speedup is not None]
    cells = list(dict.fromkeys((row.threads, row.precision, row.passes) for row in main))
    names = [name for name in COLOURS if any(row.implementation == name for row in main)]
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        bars = {
            cells.index((row.threads, row.precision, row.passes)): row.speedup
            for row in main
            if row.implementation == name
        }
        drawn = axes.bar(
            [cell - 0.4 + (place + 0.5) * width for cell in bars],
            list(bars.values()),
            width,
            color=colour(name),
            label=name,
        )
        axes.bar_label(drawn, fmt="%.1f", fontsize=7)
    labels = [
        f"{passes}\n{precision}, {threads} thread{'' if threads == 1 else 's'}"
        for threads, precision, passes in cells
    ]
    axes.set_xticks(range(len(cells)), labels, fontsize=7)
    axes.set_ylabel("times as fast as plain PyTorch")
    axes.set_title("Main case: 512 training prefixes of up to 20 items, T = 4", fontsize=11)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)


PLOTS: dict[str, Callable[[Sequence[Row], Path], None]] = {
    "ratios.png": plot_ratios,
    "steps.png": plot_steps,
    "batch.png": plot_batch,
    "length.png": plot_length,
}
