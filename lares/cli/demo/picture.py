"""The picture of the demo on drawn data: bars of times, and the curve of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lares.cli.demo.timings import HERE, PLAIN, Speed, Speeds
from lares.pictures import three_plots, write_figure

_OURS, _PLAIN = "this package", "plain PyTorch"


def draw(
    speeds: Speeds,
    models: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    machine: str,
    path: Path,
) -> None:
    """Draw what an epoch and requests take, and how the training went.

    Args:
        speeds: of the models.
        models: their names.
        rows: of the run's ``metrics.csv``.
        machine: that was timed, in words.
        path: of the PNG, written whole.
    """
    figure, (epochs, requests, curve) = three_plots(f"lares demo on drawn data: {machine}")
    _bars(epochs, {name: (name, speeds.epoch) for name in models}, 1.0)
    epochs.set(ylabel="seconds", title="A training epoch, drawn")
    epochs.legend()
    one, many = (
        {f"{name},\n{what}": (name, speed) for name in models}
        for what, speed in (("alone", speeds.one), (f"of {speeds.many.histories}", speeds.many))
    )
    _bars(requests, one | many, 1e3)
    requests.set(ylabel="milliseconds each", title="Requests alone and in a batch, drawn")
    for column, label in (("valid_ndcg@10", "NDCG@10"), ("valid_recall@10", "Recall@10")):
        measured = [row for row in rows if row[column]]
        numbers = [float(row[column]) for row in measured]
        curve.plot([int(row["epoch"]) for row in measured], numbers, marker=".", label=label)
    curve.set(xlabel="epoch of LARES", ylabel="validation", title="How the law is learnt, drawn")
    curve.xaxis.get_major_locator().set_params(integer=True)
    curve.set_ylim(bottom=0)
    curve.legend()
    write_figure(figure, path)


def _bars(axes: Any, pairs: Mapping[str, tuple[str, Speed]], scale: float) -> None:
    """Draw two bars for a model and what it does, of the time a history in units of ``1 / scale``
    seconds, with how many times as fast it is here."""
    width = 0.4
    for place, (name, speed) in enumerate(pairs.values()):
        here, plain = (
            scale * speed.seconds(name, whose) / speed.histories for whose in (HERE, PLAIN)
        )
        first = place == 0
        axes.bar(place - width / 2, here, width, color="C0", label=_OURS if first else None)
        axes.bar(place + width / 2, plain, width, color="C7", label=_PLAIN if first else None)
        faster = f"{speed.faster(name).median:.1f}x"
        axes.annotate(faster, (place, max(here, plain)), ha="center", va="bottom")
    axes.set_xticks(range(len(pairs)), list(pairs))
    axes.margins(y=0.15)
