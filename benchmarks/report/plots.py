"""Plots of results: cost against depth, batch, length and floor, and how implementations compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import gpu
from benchmarks.cases.op import SHAPE, Case
from benchmarks.report.results import GpuRow, Row
from benchmarks.report.tables import PASSES

mpl.use("Agg")

DPI = 120
MAIN = Case("main")
COLOURS = {
    "plain": "tab:gray",
    "compiled": "tab:orange",
    "packed": "tab:green",
    "op:equations": "tab:purple",
    "op:reference": "tab:blue",
    "op:cpu": "tab:red",
}
GPU_COLOURS = {
    "explicit": "tab:gray",
    "plain": "tab:blue",
    "varlen": "tab:green",
    "op:reference": "tab:purple",
    "op:triton": "tab:red",
    "op:cuda": "tab:pink",
    "op:cpu": "tab:orange",
}


def like_main(row: Row, *varied: str, main: Case = MAIN) -> bool:
    """Whether a timed row has the main case's values but for those ``varied``."""
    case = replace(main, backward=row.passes == PASSES[1])
    same = (name for name in ("precision", "threads", *SHAPE) if name not in varied)
    return (
        row.median_us is not None
        and row.case != "avx2"  # that case differs in what no column says
        and not row.case.endswith("-compiled")
        and row.dropout == case.rate
        and all(getattr(row, name) == getattr(main, name) for name in same)
    )


def compared(rows: Sequence[Row]) -> list[str]:
    """Plain and the op's fastest backend that has times."""
    found = {row.implementation for row in rows if row.median_us is not None}
    fastest = [name for name in ("op:cpu", "op:reference") if name in found]
    return ["plain", *fastest[:1]]


def _panels(
    title: str,
    xlabel: str,
    ylabel: str,
    scale: Callable[[Axes], None],
    draw: Callable[[Axes, str], None],
) -> Figure:
    """A panel for each pass, in which ``draw`` draws."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for passes, axes in zip(PASSES, figure.subplots(1, 2), strict=True):
        axes.set_title(passes, fontsize=10)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
        draw(axes, passes)
        scale(axes)
        if axes.lines:
            axes.legend(fontsize=8)
    return figure


def _curve(axes: Axes, points: dict[Any, float], style: str, **options: str) -> None:
    if points:
        axes.plot(*zip(*sorted(points.items()), strict=True), style, marker="o", **options)


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _steep(axes: Axes) -> None:
    axes.set_yscale("log")


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log", base=4)
    axes.xaxis.set_major_formatter("{x:.0f}")
    _steep(axes)


def plot_cost(
    value: str, scale: Callable[[Axes], None], on_card: bool, rows: Sequence[Row]
) -> Figure | None:
    """A call's time against one value of the main case, a curve for each implementation.

    On a card all there are, and nothing where no curve has two points.
    """
    column, xlabel = {"depth": ("steps", "steps T"), "batch": ("batch", "sequences B")}[value]
    main, colours = (gpu.MAIN, GPU_COLOURS) if on_card else (MAIN, COLOURS)
    names, fewest = (list(colours), 2) if on_card else (compared(rows), 1)
    near = [row for row in rows if like_main(row, column, main=main)]

    def draw(axes: Axes, passes: str) -> None:
        for name in names:
            chosen = [row for row in near if (row.implementation, row.passes) == (name, passes)]
            points = {getattr(row, column): (row.median_us or 0.0) / 1000 for row in chosen}
            if len(points) >= fewest:
                _curve(axes, points, "-", color=colours[name], label=name)

    title, unit = f"Cost against {value}", "milliseconds on the device"
    if not on_card:
        title, unit = f"{title} (fp32, one thread)", "milliseconds a call"
    figure = _panels(title, xlabel, unit, scale, draw)
    return None if on_card and not any(axes.lines for axes in figure.axes) else figure


def plot_length(rows: Sequence[Row]) -> Figure:
    """Time of a real token against the width of the batch, full and with short sequences."""
    timed = [row for row in rows if row.case.startswith("length-") and row.median_us is not None]

    def draw(axes: Axes, passes: str) -> None:
        for name, (kind, style) in product(compared(rows), (("full", "-"), ("geometric", "--"))):
            wanted = (name, passes, kind)
            chosen = [r for r in timed if (r.implementation, r.passes, r.lengths) == wanted]
            points = {row.max_length: (row.median_us or 0.0) / (row.tokens or 1) for row in chosen}
            label = f"{name}, {kind} lengths"
            _curve(axes, points, style, color=COLOURS[name], label=label)

    title, xlabel = "Cost against length (fp32, one thread)", "longest sequence L"
    return _panels(title, xlabel, "microseconds a real token", _from_zero, draw)


def plot_ratios(rows: Sequence[Row]) -> Figure:
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
        left = [cell - 0.4 + (place + 0.5) * width for cell in bars]
        drawn = axes.bar(left, list(bars.values()), width, color=COLOURS[name], label=name)
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
    return figure


def plot_compared(rows: Sequence[GpuRow]) -> Figure | None:
    """Every implementation of the main case: time on the device, and the floor.

    Those of its race against compiled programs, too, where that added something.
    """
    chosen = {
        passes: [
            row
            for case in ("main-compiled", "main")
            for row in rows
            if (row.case, row.passes, row.precision) == (case, passes, gpu.MAIN.precision)
        ]
        for passes in PASSES
    }
    if not all(chosen.values()):
        return None
    figure = Figure(figsize=(11, 5), layout="constrained")
    for (passes, found), axes in zip(chosen.items(), figure.subplots(1, 2), strict=True):
        times = {row.implementation: row.median_us or 0.0 for row in found}
        _bars(axes, dict(sorted(times.items(), key=lambda each: -each[1])), "tab:blue", "%.0f", 8)
        axes.set_xscale("log")
        if found[0].floor_us:
            axes.axvline(found[0].floor_us, color="tab:red", label="floor")
            axes.legend(fontsize=8)
        axes.set_title(passes, fontsize=10)
        axes.set_xlabel("microseconds on the device")
    figure.suptitle(f"Main case in {gpu.MAIN.precision}, B = {found[0].batch}", fontsize=11)
    return figure


def plot_floor(rows: Sequence[GpuRow]) -> Figure | None:
    """How many times its floor each of the op's rows takes."""
    best: dict[str, float] = {}
    for row in rows:
        if row.implementation in ("op:triton", "op:cuda") and row.floor_us and row.median_us:
            name = f"{row.case}, {row.passes}, {row.precision}"
            best[name] = min(row.median_us / row.floor_us, best.get(name, float("inf")))
    if not best:
        return None
    figure = Figure(figsize=(8, 1 + 0.25 * len(best)), layout="constrained")
    axes = figure.subplots()
    _bars(axes, best, "tab:red", "%.1f", 7)
    axes.set_xlabel("times the floor")
    axes.invert_yaxis()
    return figure


def _bars(axes: Axes, values: dict[str, float], colour: str, form: str, size: int) -> None:
    bars = axes.barh(list(values), list(values.values()), color=colour)
    axes.bar_label(bars, fmt=form, fontsize=size, padding=2)
    axes.tick_params(labelsize=size)


Plot = Callable[[Sequence[Any]], "Figure | None"]
# By page, and by file; None where there are too few rows.
PLOTS: dict[str, dict[str, Plot]] = {
    "cpu": {
        "ratios.png": plot_ratios,
        "steps.png": partial(plot_cost, "depth", _from_zero, False),
        "batch.png": partial(plot_cost, "batch", _logarithmic, False),
        "length.png": plot_length,
    },
    "catalogue": {},
    "gpu": {
        "gpu-compared.png": plot_compared,
        "gpu-steps.png": partial(plot_cost, "depth", _steep, True),
        "gpu-batch.png": partial(plot_cost, "batch", _logarithmic, True),
        "gpu-floor.png": plot_floor,
    },
}
