"""Make of a run's summary what pictures show of the run."""

from __future__ import annotations

from lares.training.breakdown import Breakdown
from lares.training.plots import DrawnRun, metric_label
from lares.training.summary import RunSummary


def drawn_run(run: RunSummary, name: str, breakdown: Breakdown | None, metric: str) -> DrawnRun:
    """Return what is drawn of a run.

    Args:
        run: of a kind that is known.
        name: that it has in the picture.
        breakdown: of its best model, where that is known.
        metric: that its caption gives.
    """
    result = run.result
    return DrawnRun(
        name=name,
        kind=run.kind,
        rows=run.rows,
        test={} if result is None else result.test,
        start={} if result is None else result.start,
        breakdown=breakdown,
        caption=_caption(run, breakdown, metric),
    )


def _caption(run: RunSummary, breakdown: Breakdown | None, metric: str) -> list[str]:
    """Return what a run came to and how it was made, in lines."""
    lines = []
    if breakdown is not None:
        row = next(row for row in breakdown.by_depth if row["depth"] == breakdown.depth)
        value = f"{row[metric]:.4f} ± {row[f'{metric}_error']:.4f}"
        lines.append(f"{metric_label(metric)} {value} at depth {breakdown.depth}")
    elif run.tested is not None:
        depth, metrics = run.tested
        lines.append(f"{metric_label(metric)} {metrics[metric]:.4f} at depth {depth}")
    if run.likeness is not None:
        how = f"recipe {run.likeness.recipe}" if run.likeness.recipe else "post-training"
        n = len(run.likeness.differs)
        lines.append(f"{how}, {n} option{'s' * (n != 1)} set otherwise" if n else how)
    if run.best is not None:
        seconds = "" if run.seconds is None else f", {run.seconds:,.0f} s"
        lines.append(f"best epoch {run.best[0]} of {run.epochs}{seconds}")
    return lines
