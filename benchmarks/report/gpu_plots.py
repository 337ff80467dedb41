"""Plots of a GPU's rows. Each is drawn only where there are rows for it, and says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases.gpu import MAIN
from benchmarks.report.plots import DPI, SHAPE, two_panels
from benchmarks.report.results import GpuRow
from benchmarks.report.tables import PASSES

_FEWEST_POINTS = 2
_COLOURS = {
    "explicit": "tab:gray",
    "plain": "tab:blue",
    "varlen": "tab:green",
    "op:reference": "tab:purple",
    "op:triton": "tab:red",
    "op:cuda": "tab:pink",
    "op:cpu": "tab:orange",
}


def like_main(row: GpuRow, varied: str) -> bool:
    """Whether a row has the main case's values but for the one ``varied``."""
    dropout = 0.5 if row.passes == PASSES[1] else 0.0
    return (
        row.median_us is not None
        and (row.precision, row.dropout) == (MAIN.precision, dropout)
        and not row.case.endswith("-compiled")
        and all(getattr(row, name) == getattr(MAIN, name) for name in SHAPE if name != varied)
    )


def plot_compared(rows: Sequence[GpuRow], path: Path) -> bool:
    """Every implementation of the main case: time on the device, and the floor."""
    chosen = {passes: _main_rows(rows, passes) for passes in PASSES}
    if not all(chosen.values()):
        return False
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = zip(chosen.items(), figure.subplots(1, 2), strict=True)
    for (passes, found), axes in panels:
        times = {row.implementation: row.median_us or 0.0 for row in found}
        names = sorted(times, key=lambda name: -times[name])
        bars = axes.barh(names, [times[name] for name in names], color="tab:blue")
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
        axes.set_xscale("log")
        if found[0].floor_us:
            axes.axvline(found[0].floor_us, color="tab:red", label="floor")
            axes.legend(fontsize=8)
        axes.set_title(passes, fontsize=10)
        axes.set_xlabel("microseconds on the device")
        axes.tick_params(labelsize=8)
    figure.suptitle(f"Main case in {MAIN.precision}, B = {found[0].batch}", fontsize=11)
    figure.savefig(path, dpi=DPI)
    return True


def _main_rows(rows: Sequence[GpuRow], passes: str) -> list[GpuRow]:
    """Of the main case and of its race against compiled programs, where that added something."""
    found = {}
    for case in ("main-compiled", "main"):
        for row in rows:
            if (row.case, row.passes, row.precision) == (case, passes, MAIN.precision):
                found[row.implementation] = row
    return list(found.values())


def _sweep(
    title: str, value: str, xlabel: str, logarithmic: bool
) -> Callable[[Sequence[GpuRow], Path], bool]:
    """A plot of time against one value, a curve for each implementation."""

    def plot(rows: Sequence[GpuRow], path: Path) -> bool:
        figure, panels = two_panels(title, xlabel, "milliseconds on the device")
        enough = False
        for passes, axes in panels.items():
            chosen = [row for row in rows if row.passes == passes and like_main(row, value)]
            enough |= _curves(axes, chosen, value)
            axes.set_yscale("log")
            if logarithmic:
                axes.set_xscale("log", base=4)
                axes.xaxis.set_major_formatter("{x:.0f}")
        if enough:
            figure.savefig(path, dpi=DPI)
        return enough

    return plot


def _curves(axes: Axes, rows: Sequence[GpuRow], value: str) -> bool:
    """A curve for each implementation of ``_COLOURS`` with enough points; whether there was one."""
    drawn = False
    for name, colour in _COLOURS.items():
        points = {
            getattr(row, value): 1e-3 * (row.median_us or 0.0)
            for row in rows
            if row.implementation == name
        }
        if len(points) >= _FEWEST_POINTS:
            drawn = True
            axes.plot(
                *zip(*sorted(points.items()), strict=True), marker="o", color=colour, label=name
            )
    if drawn:
        axes.legend(fontsize=8)
    return drawn


def plot_floor(rows: Sequence[GpuRow], path: Path) -> bool:
    """How many times its floor each of the op's rows takes."""
    best: dict[str, float] = {}
    for row in rows:
        if row.implementation in ("op:triton", "op:cuda") and row.floor_us and row.median_us:
            name = f"{row.case}, {row.passes}, {row.precision}"
            best[name] = min(row.median_us / row.floor_us, best.get(name, float("inf")))
    if not best:
        return False
    figure = Figure(figsize=(8, 1 + 0.25 * len(best)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(best), list(best.values()), color="tab:red")
    axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_xlabel("times the floor")
    axes.tick_params(labelsize=7)
    axes.invert_yaxis()
    figure.savefig(path, dpi=DPI)
    return True


PLOTS: dict[str, Callable[[Sequence[GpuRow], Path], bool]] = {
    "gpu-compared.png": plot_compared,
    "gpu-steps.png": _sweep("Cost against depth", "steps", "steps T", logarithmic=False),
    "gpu-batch.png": _sweep("Cost against batch", "batch", "sequences B", logarithmic=True),
    "gpu-floor.png": plot_floor,
}
