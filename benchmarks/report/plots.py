"""Plots of results: cost against depth, batch, length, width, threads and floor, and ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.cases import gpu
from benchmarks.cases.op import SHAPE, Case
from benchmarks.report.palette import (
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    STYLE,
)
from benchmarks.report.results import GpuRow, Row
from benchmarks.report.tables import PASSES
from lares.pictures import GREY, INK

MAIN = Case("main")
# What a pass is called in the name of a file.
SLUGS = {"forward": "forward", "forward+backward": "training"}
COLOURS = {
    "plain": GREY,
    "compiled": ORANGE,
    "packed": GREEN,
    "op:equations": PURPLE,
    "op:reference": PINK,
    "op:cpu": BLUE,
}
GPU_COLOURS = {
    "explicit": GREY,
    "plain": ORANGE,
    "varlen": GREEN,
    "op:reference": PURPLE,
    "op:triton": BLUE,
    "op:cuda": RED,
    "op:cpu": PINK,
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


def single(title: str, width: float = 4.3, height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure of one plot in the project's style; two of them stand beside each other on a page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
    return figure, axes


def curve(axes: Axes, points: dict[Any, float], label: str, colour: str, style: str = "-") -> None:
    """Draw values by their place on the horizontal axis, where there are any."""
    if points:
        places, values = zip(*sorted(points.items()), strict=True)
        axes.plot(places, values, style, marker="o", label=label, color=colour)


def legend(axes: Axes) -> None:
    """Name the curves below the plot, where there are any."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure()
    if handles and isinstance(figure, Figure):
        with mpl.rc_context(STYLE):
            figure.legend(handles, labels, loc="outside lower center", ncols=2)


def plainly(axis: Axis) -> None:
    """Label a logarithmic axis with numbers as one says them."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _steep(axes: Axes) -> None:
    axes.set_yscale("log")
    plainly(axes.yaxis)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log", base=4)
    axes.xaxis.set_major_formatter("{x:.0f}")
    _steep(axes)


def _ticks_at(axes: Axes, places: Iterable[float]) -> None:
    axes.set_xticks(sorted(set(places)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")


def _milliseconds(row: Row) -> float:
    return (row.median_us or 0.0) / 1000


def _of_a_token(row: Row) -> float:
    return (row.median_us or 0.0) / (row.tokens or 1)


def plot_cost(
    value: str, scale: Callable[[Axes], None], on_card: bool, rows: Sequence[Row], passes: str
) -> Figure | None:
    """A call's time against one value of the main case, a curve for each implementation.

    On a card all there are, and nothing where no curve has two points.
    """
    column, xlabel = {"depth": ("steps", "steps T"), "batch": ("batch", "sequences B")}[value]
    main, colours = (gpu.MAIN, GPU_COLOURS) if on_card else (MAIN, COLOURS)
    names, fewest = (list(colours), 2) if on_card else (compared(rows), 1)
    near = [row for row in rows if row.passes == passes and like_main(row, column, main=main)]
    figure, axes = single(f"{passes}: cost against {value}")
    for name in names:
        chosen = [row for row in near if row.implementation == name]
        points = {getattr(row, column): _milliseconds(row) for row in chosen}
        if len(points) >= fewest:
            curve(axes, points, name, colours[name])
    unit = "milliseconds on the device" if on_card else "milliseconds a call"
    axes.set(xlabel=xlabel, ylabel=unit)
    scale(axes)
    legend(axes)
    return None if on_card and not axes.lines else figure


def plot_length(rows: Sequence[Row], passes: str) -> Figure:
    """Time of a real token against the width of the batch, full and with short sequences."""
    timed = [row for row in rows if row.case.startswith("length-") and row.median_us is not None]
    figure, axes = single(f"{passes}: cost against length")
    for name, (kind, style) in product(compared(rows), (("full", "-"), ("geometric", "--"))):
        wanted = (name, passes, kind)
        chosen = [row for row in timed if (row.implementation, row.passes, row.lengths) == wanted]
        points = {row.max_length: _of_a_token(row) for row in chosen}
        curve(axes, points, f"{name}, {kind} lengths", COLOURS[name], style)
    axes.set(xlabel="longest sequence L", ylabel="microseconds a real token")
    _steep(axes)
    legend(axes)
    return figure


def plot_width(rows: Sequence[Row], passes: str) -> Figure:
    """Time of a real token against the width of a token; wide batches have fewer sequences."""
    near = [
        row
        for row in rows
        if row.passes == passes
        and like_main(row, "d_model", "n_heads", "d_ff", "batch")
        and (row.case == "main" or row.case.startswith("width-"))
    ]
    figure, axes = single(f"{passes}: cost against width")
    for name in compared(rows):
        chosen = [row for row in near if row.implementation == name]
        points = {row.d_model: _of_a_token(row) for row in chosen}
        curve(axes, points, name, COLOURS[name])
    axes.set(xlabel="width d", ylabel="microseconds a real token", xscale="log")
    _steep(axes)
    _ticks_at(axes, [row.d_model or 0 for row in near])
    legend(axes)
    return figure


def plot_threads(rows: Sequence[Row], passes: str) -> Figure:
    """Time of the main case against threads, a curve for each implementation and precision."""
    main = [row for row in rows if row.case == "main" and row.passes == passes and row.median_us]
    figure, axes = single(f"{passes}: cost against threads")
    for (name, colour), (precision, style) in product(
        COLOURS.items(), (("fp32", "-"), ("bf16", "--"))
    ):
        chosen = [row for row in main if (row.implementation, row.precision) == (name, precision)]
        points = {row.threads: _milliseconds(row) for row in chosen}
        if len(points) > 1:
            curve(axes, points, f"{name}, {precision}", colour, style)
    axes.set(xlabel="threads", ylabel="milliseconds a call")
    _steep(axes)
    _ticks_at(axes, [row.threads for row in main])
    legend(axes)
    return figure


def plot_ratios(rows: Sequence[Row], passes: str) -> Figure:
    """How many times as fast as plain each implementation is in the main case."""
    figure, axes = single(f"{passes}: times as fast as plain PyTorch")
    main = [row for row in rows if row.case == "main" and row.passes == passes]
    timed = [row for row in main if row.speedup is not None]
    cells = list(dict.fromkeys((row.threads, row.precision) for row in timed))
    names = [name for name in COLOURS if any(row.implementation == name for row in timed)]
    width = 0.84 / max(1, len(names))
    for place, name in enumerate(names):
        bars = {
            cells.index((row.threads, row.precision)): row.speedup
            for row in timed
            if row.implementation == name
        }
        left = [cell - 0.42 + (place + 0.5) * width for cell in bars]
        drawn = axes.bar(left, list(bars.values()), width, color=COLOURS[name], label=name)
        if name in compared(rows)[1:]:
            axes.bar_label(drawn, fmt="%.1f", fontsize=7, color=INK)
    labels = [
        f"{precision}\n{threads} thread{'' if threads == 1 else 's'}"
        for threads, precision in cells
    ]
    axes.set_xticks(range(len(cells)), labels)
    axes.grid(visible=False, axis="x")
    axes.axhline(1.0, color=INK, linewidth=0.8)
    legend(axes)
    return figure


def plot_compared(rows: Sequence[GpuRow], passes: str) -> Figure | None:
    """Every implementation of the main case: time on the device, and the floor.

    Those of its race against compiled programs, too, where that added something.
    """
    chosen = [
        row
        for case in ("main-compiled", "main")
        for row in rows
        if (row.case, row.passes, row.precision) == (case, passes, gpu.MAIN.precision)
    ]
    if not chosen:
        return None
    figure, axes = single(f"{passes} in {gpu.MAIN.precision}, B = {chosen[0].batch}", 4.6, 4.4)
    times = {row.implementation: row.median_us or 0.0 for row in chosen}
    _bars(axes, dict(sorted(times.items(), key=lambda each: -each[1])), BLUE, "%.0f")
    axes.set(xscale="log", xlabel="microseconds on the device")
    if chosen[0].floor_us:
        axes.axvline(chosen[0].floor_us, color=RED, label="floor")
    legend(axes)
    return figure


def plot_floor(rows: Sequence[GpuRow], passes: str) -> Figure | None:
    """How many times its floor each of the op's rows takes."""
    best: dict[str, float] = {}
    for row in rows:
        own = row.implementation in ("op:triton", "op:cuda") and row.passes == passes
        if own and row.floor_us and row.median_us:
            name = f"{row.case}, {row.precision}"
            best[name] = min(row.median_us / row.floor_us, best.get(name, float("inf")))
    if not best:
        return None
    figure, axes = single(f"{passes}: times the floor", 4.6, 1 + 0.25 * len(best))
    _bars(axes, best, BLUE, "%.1f")
    axes.set_xlabel("times the floor")
    axes.invert_yaxis()
    return figure


def _bars(axes: Axes, values: dict[str, float], colour: str, form: str) -> None:
    bars = axes.barh(list(values), list(values.values()), color=colour)
    axes.bar_label(bars, fmt=form, fontsize=7, padding=2, color=INK)
    axes.grid(visible=False, axis="y")


Plot = Callable[[Sequence[Any], str], "Figure | None"]
# By page, and by the file's name but for its pass; None where there are too few rows.
PLOTS: dict[str, dict[str, Plot]] = {
    "cpu": {
        "ratios": plot_ratios,
        "depth": partial(plot_cost, "depth", _from_zero, False),
        "batch": partial(plot_cost, "batch", _logarithmic, False),
        "length": plot_length,
        "width": plot_width,
        "threads": plot_threads,
    },
    "catalogue": {},
    "gpu": {
        "gpu-compared": plot_compared,
        "gpu-depth": partial(plot_cost, "depth", _steep, True),
        "gpu-batch": partial(plot_cost, "batch", _logarithmic, True),
        "gpu-floor": plot_floor,
    },
}


def figures(rows: Sequence[Row], page: str) -> dict[str, Figure]:
    """Every plot that rows are enough for, by the name of its file."""
    drawn = {
        f"{name}-{slug}.svg": plot(rows, passes)
        for name, plot in PLOTS[page].items()
        for passes, slug in SLUGS.items()
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
