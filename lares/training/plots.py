"""The curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lares.pictures import three_plots, write_figure


def plot_run(
    rows: Sequence[Mapping[str, str]],
    test: Mapping[int, Mapping[str, float]],
    path: Path,
    title: str,
    curves: Mapping[str, str],
    *,
    start: Mapping[int, Mapping[str, float]] | None = None,
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
    for name, label in curves.items():
        epochs, values = _measured(rows, name)
        if any(values):
            losses.plot(epochs, values, label=label)
    losses.set(xlabel="epoch", ylabel="mean of the epoch", title="Training")
    losses.legend()

    for name, label in (("valid_ndcg@10", "NDCG@10"), ("valid_recall@10", "Recall@10")):
        validation.plot(*_measured(rows, name), label=label)
    validation.set(xlabel="epoch", ylabel="full ranking", title="Validation")
    validation.legend()

    depths = sorted(test)
    for name, label in (("ndcg@10", "NDCG@10"), ("recall@10", "Recall@10")):
        (line,) = depth.plot(depths, [test[d][name] for d in depths], marker="o", label=label)
        if start:
            before = [start[d][name] for d in depths]
            depth.plot(depths, before, "--", color=line.get_color(), label=f"{label} at the start")
    for style, (name, value) in zip(("--", ":", "-."), (baselines or {}).items(), strict=False):
        depth.axhline(value, linestyle=style, color="grey", label=f"{name} (NDCG@10)")
    depth.set(xlabel="reasoning depth", ylabel="full ranking", title="Test", xticks=depths)
    depth.set_ylim(bottom=0)
    depth.legend()
    write_figure(figure, path)


def _measured(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Epochs in which a column was measured, and its values."""
    measured = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
    return [epoch for epoch, _ in measured], [value for _, value in measured]
