"""``lares plot RUN...``: runs side by side as one picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lares.cli.options import (
    OptionParser,
    add_options,
    checked,
    choose_device,
    command_parser,
    known_device,
    require_picture,
)
from lares.data.fetch.sets import is_data
from lares.data.file_names import last_name
from lares.errors import CheckpointError, ConfigError, DataError, LaresError
from lares.model.config import MOST_THREADS
from lares.model.folders import WEIGHTS_FILE
from lares.plain import option, settle_options, whole_in
from lares.training.breakdown import Breakdown, weights_digest
from lares.training.drawn import drawn_run
from lares.training.plots import MOST_RUNS, plot_runs
from lares.training.run_folder import find_run
from lares.training.summary import RunSummary, data_name, summary_of

_PICTURE = "plot.png"


@dataclass(frozen=True)
class PlotOptions:
    """Options of the command.

    Attributes:
        output: File for the picture, in .png, .svg or .pdf. Default: plot.png in the run's folder; of
            several runs in the folder that holds them all.
        metric: Metric to draw.
        stored: Draw only what runs have stored. Else accuracy by depth, popularity and history length
            is computed from best model and data where it is not known, and stored.
        data: File or folder of interactions, for runs whose own are no longer where they were.
        device: Device, such as cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one.
        num_threads: Number of threads on the CPU. Default: torch's setting.
    """

    output: str | None = None
    metric: Literal["ndcg@10", "recall@10"] = "ndcg@10"
    stored: bool = False
    data: str | None = None
    device: str = option("auto", known_device)
    num_threads: int | None = option(None, whole_in(1, MOST_THREADS))

    def __post_init__(self) -> None:
        settle_options(self, "--")
        if self.stored and self.data is not None:
            raise ConfigError(
                "--stored computes nothing, so that --data is not read: leave one of them"
            )
        if self.data is not None and not is_data(self.data):
            raise DataError(f"--data: there is no file or folder {self.data}")


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "plot",
        "Draw training, validation, and test accuracy by reasoning depth, popularity of the target and "
        "history length, of one or several runs side by side.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="Run folders.")
    add_options(parser, PlotOptions, {"output": "FILE", "data": "DATA"})
    return parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares plot``."""
    args = build_parser().parse_args(list(argv))
    options = checked(args, PlotOptions)
    given = None if options.output is None else require_picture("--output", options.output)
    runs = _summaries(list(dict.fromkeys(Path(name) for name in args.runs)))
    if len(runs) > MOST_RUNS:
        raise ConfigError(
            f"there are {len(runs)} runs; a picture has room for {MOST_RUNS}: leave some of them"
        )
    paths = [each.folder.path for each in runs]
    output = given or require_picture("--output", str(_usual_output(paths)))
    breakdowns = [_stored(each) for each in runs]
    if not options.stored:
        breakdowns = _computed(runs, breakdowns, options)
    _say_what_is_left_out(runs, breakdowns, options)

    names = _names(paths)
    drawn = [
        drawn_run(each, name, breakdown, options.metric)
        for name, each, breakdown in zip(names, runs, breakdowns, strict=True)
    ]
    configs = [each.config for each in runs if each.config is not None]
    data = ", ".join(dict.fromkeys(map(data_name, configs)))
    title = f"{data}: {names[0]}" if len(runs) == 1 else f"{len(runs)} runs on {data}"
    plot_runs(drawn, output, title, options.metric)
    print(output)


def _summaries(paths: Sequence[Path]) -> list[RunSummary]:
    """Return what folders say of their runs.

    Of several paths, as a shell makes them of ``runs/*``, those that are there and are no whole runs
    are left out, and said so.

    Raises:
        ConfigError: a path is none, or no run is left.
        CheckpointError: the only one is damaged.
    """
    found, refused = [], []
    for path in paths:
        if find_run(path) is None:
            error: LaresError = ConfigError(
                f"{path} is no run folder; 'lares runs FOLDER' lists those in a folder"
            )
            if not path.exists():
                raise error
            refused.append(error)
            continue
        summary = summary_of(path)
        if summary.state == "damaged":
            refused.append(CheckpointError(f"{path} is damaged: {summary.reason}"))
        else:
            found.append(summary)
    if not found:
        raise refused[0]
    for error in refused:
        _note(f"left out: {error}")
    return found


def _usual_output(paths: Sequence[Path]) -> Path:
    if len(paths) == 1:
        return paths[0] / _PICTURE
    holding = os.path.commonpath([path.absolute().parent for path in paths])
    return Path(os.path.relpath(holding)) / _PICTURE


def _stored(run: RunSummary) -> Breakdown | None:
    """Return the breakdown of a run's best model that its folder holds; None if it holds none of it."""
    found = Breakdown.load(run.folder.breakdown)
    if found is None or run.config is None:
        return None
    options = run.config.trainer
    weights = weights_digest(run.folder.best)
    same = found.answers(weights, options.test_states, options.remove_history)
    return found if same else None


def _computed(
    runs: Sequence[RunSummary], breakdowns: list[Breakdown | None], options: PlotOptions
) -> list[Breakdown | None]:
    """Return breakdowns, with those that runs have not stored computed and stored as far as there are
    models and data."""
    missing = [
        (number, _place_of_data(run, options.data))
        for number, run in enumerate(runs)
        if breakdowns[number] is None and _has_model(run)
    ]
    there = [(number, place) for number, place in missing if place is not None]
    if not there:
        return breakdowns
    device = choose_device(options.device, options.num_threads)
    # Imported here: it brings torch, which pictures of what is stored can do without.
    from lares.training.tested import RunTest

    found = list(breakdowns)
    for number, place in there:
        folder = runs[number].folder
        try:
            test = RunTest.of(folder, place)
        except DataError as error:
            if options.data is not None:
                raise
            _note(f"{folder.path}: no accuracy by popularity and history length: {error}")
            continue
        _note(f"{folder.path}: testing its best model on {place}")
        breakdown = test.breakdown(device)
        try:
            breakdown.save(folder.breakdown)
        except CheckpointError as error:
            _note(f"{error}; the next picture computes it again")
        found[number] = breakdown
    return found


def _has_model(run: RunSummary) -> bool:
    return (run.folder.best / WEIGHTS_FILE).is_file()


def _place_of_data(run: RunSummary, given: str | None) -> str | None:
    """Return where a run's data lie; None if they are gone."""
    own = "" if run.config is None else run.config.data.path
    if own and is_data(own):
        return own
    return given


def _say_what_is_left_out(
    runs: Sequence[RunSummary], breakdowns: Sequence[Breakdown | None], options: PlotOptions
) -> None:
    for run, breakdown in zip(runs, breakdowns, strict=True):
        if breakdown is not None:
            continue
        place = "" if run.config is None else run.config.data.path
        if not _has_model(run):
            reason = "it has no best model yet"
        elif options.stored:
            reason = "it has none stored"
        elif not place:
            reason = "it was trained on data in memory; --data names a file of them"
        elif not is_data(place):
            reason = f"its data {place} are not there; --data says where they are now"
        else:
            continue  # was told as they were read
        _note(f"{run.folder.path}: no accuracy by popularity and history length: {reason}")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what runs are called: their folders' names, or the whole paths where two are the same."""
    names = [last_name(path) for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
