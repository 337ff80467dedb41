"""Runs as pictures: training, validation, and accuracy by depth, popularity and history length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lares.pictures import GREY, INK, PALETTE, as_text, plots, three_plots, write_figure
from lares.training.breakdown import Breakdown, K, Row

# Labels of the columns of metrics.csv that are drawn of a run, by its kind.
CURVES: Mapping[str, Mapping[str, str]] = {
    "train": {
        "loss": "total",
        "recommendation": "recommendation",
        "trajectory": "trajectory alignment",
        "step": "step alignment",
        "earlier": "recommendation, earlier step",
    },
    "posttrain": {
        "reward": "reward",
        "divergence": "divergence",
        "informative": "informative samples",
    },
}
# The one of several runs side by side, and what it is.
_COMPARED = {"train": ("recommendation", "cross entropy"), "posttrain": ("reward", "reward")}
_STYLES = ("-", "--", ":")
MOST_RUNS = len(PALETTE) * len(_STYLES)
_MOST_BANDS = 3  # more runs hide each other's
_MOST_LETTERS = 36  # below a plot
_WIDTH_OF_95 = 1.96  # standard errors
_LONGEST_NAME = 34  # letters
_CAPTIONS = {4: 3, 9: 1}  # most lines below a name, by the most runs that these have room for
_NAMES = {"ndcg": "NDCG", "recall": "Recall"}
Metrics = Mapping[int, Mapping[str, float]]  # by depth


@dataclass(frozen=True)
class DrawnRun:
    """Hold what is drawn of a run.

    Attributes:
        name: of the run.
        kind: the command that made it, ``train`` or ``posttrain``.
        rows: of ``metrics.csv``.
        test: metrics of the test samples by depth, where they are known; start: of the model that the
            run began with.
        breakdown: where it is known; ``test`` is not drawn then.
        caption: what else to say of it, a line each, the first that which many runs have room for.
    """

    name: str
    kind: str
    rows: Sequence[Mapping[str, str]]
    test: Metrics
    start: Metrics
    breakdown: Breakdown | None
    caption: Sequence[str] = ()


def plot_runs(runs: Sequence[DrawnRun], path: Path, title: str, metric: str = f"ndcg@{K}") -> None:
    """Draw one or several runs side by side.

    Args:
        runs: at most ``MOST_RUNS``.
        path: of the picture, written whole; its suffix, as .png, .svg or .pdf, is its form.
        title: over the picture.
        metric: that is drawn, one of ``lares.training.breakdown.METRICS``.
    """
    figure, (training, validation, depth, popularity, length, legend) = plots(title, 2, 3)
    label = metric_label(metric)
    looks = [
        {"color": PALETTE[i % len(PALETTE)], "linestyle": _STYLES[i // len(PALETTE)]}
        for i in range(len(runs))
    ]
    if len(runs) == 1:
        _draw_losses(training, runs[0].rows, CURVES[runs[0].kind])
    else:
        _draw_compared(training, runs, looks)
    for run, look in zip(runs, looks, strict=True):
        _draw_curve(validation, run.rows, f"valid_{metric}", **look)
    validation.set(xlabel="epoch", ylabel=label, title="Validation")
    if not any(len(line.get_xdata()) for line in validation.lines):
        _say_nothing_there(validation)
    _draw_depths(depth, runs, looks, metric)
    depth.set(xlabel="reasoning depth", ylabel=label, title="Test, by reasoning depth")

    tables: list[tuple[Any, str, Callable[[Row], float]]] = [
        (popularity, "by_popularity", lambda row: row["tenth"]),
        (length, "by_length", lambda row: int(row["longest"]).bit_length()),
    ]
    for axes, table, place in tables:
        for run, look in zip(runs, looks, strict=True):
            if run.breakdown is not None:
                rows = getattr(run.breakdown, table)
                _draw_rows(axes, rows, place, metric, len(runs) <= _MOST_BANDS, **look)
    popularity.set(
        xlabel="tenth of the test samples, rarest targets first",
        ylabel=label,
        title="Test, by popularity of the target",
        xticks=range(1, 11),
    )
    _name_lengths(length, runs)
    length.set(ylabel=label, title="Test, by history length")
    for axes in (depth, popularity, length):
        _fit_values(axes)
    _draw_names(legend, runs, looks)
    write_figure(figure, path)


def metric_label(metric: str) -> str:
    """Return what a picture calls a metric: NDCG@10 for ``ndcg@10``."""
    name, _, k = metric.partition("@")
    return f"{_NAMES[name]}@{k}"


def plot_run(
    rows: Sequence[Mapping[str, str]],
    test: Metrics,
    path: Path,
    title: str,
    curves: Mapping[str, str],
    *,
    start: Metrics | None = None,
    baselines: Mapping[str, float] | None = None,
) -> None:
    """Draw losses and validation by epoch, and test NDCG@10 and Recall@10 by reasoning depth.

    Args:
        rows: of ``metrics.csv``.
        test: metrics by depth.
        path: of the PNG, written whole.
        title: over the picture.
        curves: labels of the columns to draw, by name.
        start: metrics by depth of the model that the run began with.
        baselines: NDCG@10 of other models by name, drawn as lines.
    """
    figure, (losses, validation, depth) = three_plots(title)
    _draw_losses(losses, rows, curves)

    for name, label in (("valid_ndcg@10", "NDCG@10"), ("valid_recall@10", "Recall@10")):
        _draw_curve(validation, rows, name, label=label)
    validation.set(xlabel="epoch", ylabel="full ranking", title="Validation")
    validation.legend()

    depths = sorted(test)
    for name, label in (("ndcg@10", "NDCG@10"), ("recall@10", "Recall@10")):
        (line,) = depth.plot(depths, [test[d][name] for d in depths], marker="o", label=label)
        if start:
            before = [start[d][name] for d in depths]
            depth.plot(depths, before, "--", color=line.get_color(), label=f"{label} at the start")
    for style, (name, value) in zip(("--", ":", "-."), (baselines or {}).items(), strict=False):
        depth.axhline(value, linestyle=style, color=GREY, label=f"{name} (NDCG@10)")
    depth.set(xlabel="reasoning depth", ylabel="full ranking", title="Test", xticks=depths)
    depth.set_ylim(bottom=0)
    depth.legend()
    write_figure(figure, path)


def _draw_losses(axes: Any, rows: Sequence[Mapping[str, str]], curves: Mapping[str, str]) -> None:
    """Draw those columns of ``metrics.csv`` that are not zero throughout."""
    for name, label in curves.items():
        if any(_measured(rows, name)[1]):
            _draw_curve(axes, rows, name, label=label)
    axes.set(xlabel="epoch", ylabel="mean of the epoch", title="Training")
    if axes.lines:
        axes.legend()
    else:
        _say_nothing_there(axes)


def _draw_compared(axes: Any, runs: Sequence[DrawnRun], looks: Sequence[dict[str, str]]) -> None:
    """Draw the loss that runs of one kind have in common; of two kinds, that of ``train``."""
    kind = "train" if any(run.kind == "train" for run in runs) else "posttrain"
    column, label = _COMPARED[kind]
    for run, look in zip(runs, looks, strict=True):
        if run.kind == kind:
            _draw_curve(axes, run.rows, column, **look)
    others = any(run.kind != kind for run in runs)
    title = f"Training: {label}" + " (train runs)" * others
    axes.set(xlabel="epoch", ylabel="mean of the epoch", title=title)


def _draw_depths(
    axes: Any, runs: Sequence[DrawnRun], looks: Sequence[dict[str, str]], metric: str
) -> None:
    all_depths: set[int] = set()
    for run, look in zip(runs, looks, strict=True):
        if run.breakdown is not None:
            rows = run.breakdown.by_depth
        else:
            rows = [{"depth": depth, **metrics} for depth, metrics in sorted(run.test.items())]
        bands = len(runs) <= _MOST_BANDS
        _draw_rows(axes, rows, lambda row: row["depth"], metric, bands, **look)
        if len(rows) == 1 and len(runs) > 1:  # what others are held to, at any depth
            axes.axhline(rows[0][metric], color=look["color"], linestyle=":", linewidth=1)
        all_depths |= {int(row["depth"]) for row in rows}
        if len(runs) == 1 and run.start:
            before = [(depth, metrics[metric]) for depth, metrics in sorted(run.start.items())]
            axes.plot(*zip(*before, strict=True), color=GREY, linestyle="--", label="at the start")
            axes.legend()
    axes.set_xticks(sorted(all_depths))


def _draw_rows(
    axes: Any,
    rows: Sequence[Row],
    place: Callable[[Row], float],
    metric: str,
    band: bool,
    **look: str,
) -> None:
    """Draw a metric of the rows of a table, with its interval of 95 % where there are errors."""
    places, values = [place(row) for row in rows], [row[metric] for row in rows]
    axes.plot(places, values, marker="o", markersize=4, **look)
    if not (band and all(f"{metric}_error" in row for row in rows)):
        return
    reach = [_WIDTH_OF_95 * row[f"{metric}_error"] for row in rows]
    if len(rows) == 1:
        axes.errorbar(places, values, reach, color=look["color"], alpha=0.4)
        return
    low = [max(0.0, value - width) for value, width in zip(values, reach, strict=True)]
    high = [value + width for value, width in zip(values, reach, strict=True)]
    axes.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0)


def _name_lengths(axes: Any, runs: Sequence[DrawnRun]) -> None:
    """Put lengths under each place of the groups that there are, and how many samples a group has where
    that is the same of all runs."""
    bounds: dict[int, tuple[int, int]] = {}
    sizes: dict[int, set[int]] = {}
    for run in runs:
        for row in run.breakdown.by_length if run.breakdown is not None else ():
            shortest, longest = int(row["shortest"]), int(row["longest"])
            place = longest.bit_length()
            bounds[place] = shortest, longest
            sizes.setdefault(place, set()).add(int(row["samples"]))
    same = bool(sizes) and all(len(found) == 1 for found in sizes.values())
    counts = [f"\n({_short(max(sizes[place]))})" if same else "" for place in sorted(bounds)]
    ranges = [
        f"{shortest}-{longest}" if shortest < longest else str(longest)
        for _, (shortest, longest) in sorted(bounds.items())
    ]
    fit = len(" ".join(ranges)) <= _MOST_LETTERS
    names = ranges if fit else [str(longest) for _, (_, longest) in sorted(bounds.items())]
    labels = [name + count for name, count in zip(names, counts, strict=True)]
    axes.set_xticks(sorted(bounds), labels, fontsize=9 if len(labels) < 9 else 8)
    axes.set_xlabel("items of the history" + ", at most" * (not fit) + " (test samples)" * same)


def _short(number: int) -> str:
    """Return a whole number in at most five letters, as far as that goes."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= unit:
            return f"{number / unit:.{1 if number < 10 * unit else 0}f}{letter}"
    return str(number)


def _draw_curve(axes: Any, rows: Sequence[Mapping[str, str]], name: str, **look: str) -> None:
    """Draw a column by epoch; a single value as a point."""
    epochs, values = _measured(rows, name)
    axes.plot(epochs, values, marker="o" if len(epochs) == 1 else None, markersize=4, **look)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _fit_values(axes: Any) -> None:
    """Have room for what was measured, from zero on; bands of few samples may reach beyond it."""
    values = [value for line in axes.lines for value in line.get_ydata()]
    if values:
        axes.set_ylim(0.0, 1.2 * max(values) or 1.0)
    else:
        _say_nothing_there(axes)


def _say_nothing_there(axes: Any) -> None:
    axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set(xticks=[], yticks=[])


def _draw_names(axes: Any, runs: Sequence[DrawnRun], looks: Sequence[dict[str, str]]) -> None:
    """Draw each run's line beside its name and caption, where a plot would be."""
    axes.set_axis_off()
    each = next((n for most, n in _CAPTIONS.items() if len(runs) <= most), 0)  # lines of captions
    captions = [run.caption[:each] for run in runs]
    gap = 0.5 * (each > 0)
    n_lines = sum(1 + gap + len(caption) for caption in captions)
    step = 1.0 / max(12.0, n_lines + 1)
    size = min(9.0, 9.0 * step * 15)
    height = 1.0
    for run, look, caption in zip(runs, looks, captions, strict=True):
        axes.plot([0.0, 0.08], [height, height], transform=axes.transAxes, clip_on=False, **look)
        for number, line in enumerate([_shortened(run.name), *caption]):
            axes.text(
                0.11,
                height,
                as_text(line),
                transform=axes.transAxes,
                va="center",
                fontsize=size,
                color=GREY if number else INK,
                weight="normal" if number else "bold",
                parse_math=False,
            )
            height -= step
        height -= gap * step
    if len(runs) <= _MOST_BANDS and any(run.breakdown for run in runs):
        said = "Bands and bars reach 1.96 standard errors to either side."
        axes.text(0.0, height, said, transform=axes.transAxes, va="center", fontsize=8, color=GREY)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME + 3 :]}"


def _measured(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Epochs in which a column was measured, and its values."""
    measured = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
    return [epoch for epoch, _ in measured], [value for _, value in measured]
