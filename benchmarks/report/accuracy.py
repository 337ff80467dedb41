"""``python -m benchmarks.report.accuracy`` draws the plots of docs/results/accuracy from their rows.

Of each set of data validation NDCG@10 against the seconds of training, and test NDCG@10 against the
reasoning depth, one run of each model: seed 2025. Rows: docs/results/shared_epochs.csv and shared.csv.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks.core.settings import ROOT
from benchmarks.report.palette import BLUE, GREEN, ORANGE, PURPLE, RED, save_svg
from benchmarks.report.plots import curve, legend, plainly, single
from lares.pictures import GREY

RESULTS = ROOT / "docs" / "results"
FOLDER = RESULTS / "accuracy"
SEED = "2025"
METRIC = "ndcg@10"
SETS = {"scientific18": "Scientific", "beauty14": "Beauty", "ml100k": "MovieLens 100K"}
_SASREC = "--recipe sasrec --model.n_pre_layers 2 --samples users"
_PUBLISHED = "--recipe published"
_LOSS_ALONE = f"{_PUBLISHED} --objective.alpha 0 --objective.gamma 0"
_FROM_ZERO = "--model.state_mode zero --objective.deep_supervision 1"


class Model(NamedTuple):
    """What is trained: its name on the plot, its colour, and the options that its rows begin with.

    Attributes:
        ends: what the options may end with beside ``options``: how long a run may go on.
    """

    name: str
    colour: str
    options: str
    ends: tuple[str, ...] = ("",)


MODELS = (
    Model("SASRec, 2 layers", GREY, _SASREC),
    Model(
        "the same, aligned",
        ORANGE,
        f"{_SASREC} --objective.alpha .05 --objective.align_warmup 2000 --optimizer.batch_size 512 "
        "--sampling.aligned 128 --objective.one_encoding true --trainer.patience 15",
        ("", " --trainer.max_epochs 59", " --trainer.max_epochs 60"),
    ),
    Model("LARES, cross entropy", GREEN, f"{_LOSS_ALONE} --samples users {_FROM_ZERO}"),
    Model("LARES, shared", BLUE, "--recipe shared"),
    Model(
        "LARES, cross entropy, sampled",
        RED,
        f"{_LOSS_ALONE} --samples prefixes {_FROM_ZERO}",
        (" --trainer.max_epochs 12",),
    ),
    Model("LARES, published, sampled", PURPLE, _PUBLISHED),
)
Rows = Sequence[dict[str, str]]


def read(name: str) -> list[dict[str, str]]:
    """The rows of a file of docs/results."""
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_models(rows: Rows, data: str) -> Iterator[tuple[Model, Rows]]:
    """Each model that has rows of the set, with those of one run."""
    for model in MODELS:
        options = {model.options + end for end in model.ends}
        wanted = [
            row
            for row in rows
            if row["data"] == data and row["seed"] == SEED and row["options"] in options
        ]
        if wanted:
            yield model, wanted


def plot_seconds(rows: Rows, data: str) -> Figure:
    """The best validation so far against seconds of training and validation, by the run's own clock."""
    figure, axes = single(f"{SETS[data]}: validation against time")
    for model, epochs in of_models(rows, data):
        seconds = [float(row["seconds"]) for row in epochs]
        if seconds != sorted(seconds):
            raise ValueError(f"{data}, {model.name}: rows of more than one run")
        best = accumulate((float(row[f"valid_{METRIC}"]) for row in epochs), max)
        axes.step(seconds, list(best), where="post", label=model.name, color=model.colour)
    axes.set(xscale="log", xlabel="seconds on one thread", ylabel="validation NDCG@10, best so far")
    plainly(axes.xaxis)
    legend(axes)
    return figure


def plot_depth(rows: Rows, data: str) -> Figure:
    """Test NDCG@10 against the reasoning depth; models without one are level lines."""
    figure, axes = single(f"{SETS[data]}: test against depth")
    for model, depths in of_models(rows, data):
        points = {int(row["depth"]): float(row[METRIC]) for row in depths}
        if list(points) == [0]:
            axes.axhline(points[0], label=model.name, color=model.colour, linestyle="--")
        else:
            curve(axes, points, model.name, model.colour)
    axes.set(xlabel="reasoning depth", ylabel="test NDCG@10", xticks=(1, 2, 4, 8, 12, 16))
    legend(axes)
    return figure


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    epochs, tests = read("shared_epochs.csv"), read("shared.csv")
    for data in SETS:
        save_svg(plot_seconds(epochs, data), folder / f"seconds-{data}.svg")
        save_svg(plot_depth(tests, data), folder / f"depth-{data}.svg")
    print(f"{folder}: {2 * len(SETS)} plots of {len(epochs)} and {len(tests)} rows")


if __name__ == "__main__":
    main()
