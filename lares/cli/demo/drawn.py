"""The demo on drawn data: what the kernels are worth here, a short training, and a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lares.cli.demo.labelled import labelled, lines_labelled
from lares.cli.demo.machine import machine_line, why_not_the_kernels
from lares.cli.demo.picture import draw
from lares.cli.demo.timings import BATCH, HERE, PLAIN, Agreement, K, Speed, Speeds, Timed, timed
from lares.data.dataset import Dataset
from lares.data.fetch.drawn import LAW, follower
from lares.data.readers import load_dataset
from lares.model.backend import require_backend
from lares.model.model import LaresModel
from lares.names import shell_word
from lares.training.config import TrainConfig
from lares.training.loggers import CsvLog
from lares.training.result import TrainResult
from lares.training.run_folder import RunFolder
from lares.training.spt import train

PICTURE = "demo.png"
_SECONDS = 40.0  # of timing
_LABEL = "drawn"
_TABLE = f"{_LABEL}  {'':<8}{'':<20}{'here':>10}{'plain':>10}{'ratio':>8}  (quartiles)"
_MOST_SHOWN = 7  # items of a history


def show(configs: Mapping[str, TrainConfig], folder: Path) -> None:
    """Time both models beside plain PyTorch, train LARES, or go on with that, and recommend.

    Args:
        configs: of SASRec and of LARES, by these names, with the drawn data.
        folder: of the run and of the picture.
    """
    require_backend()
    config = configs["LARES"]
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    dataset = load_dataset(config.data.path)
    _say(f"{dataset.n_interactions:,} interactions: {LAW} ({config.data.path})", flush=True)
    machine = machine_line()
    print(f"\n{labelled('Speed:', machine)}\n")
    speeds = _speeds(configs, dataset)
    run = RunFolder(folder / _LABEL)
    result = _trained(config, run, dataset)
    rows = CsvLog(run.metrics, result.epochs).rows
    draw(speeds, list(configs), rows, machine, folder / PICTURE)
    recent = _recommend(run, dataset)
    _say(f"trained in {result.seconds:.0f} s; picture {folder / PICTURE}, model {run.best}")
    print(
        "\nNext: that list again; your own data; films that people saw\n\n"
        f"  lares recommend {shell_word(str(run.path))} --keep_history --history {recent}\n"
        "  lares train interactions.csv\n"
        "  lares demo --data ml-100k"
    )


def _say(line: str, flush: bool = False) -> None:
    print(labelled(_LABEL, line), flush=flush)


def _speeds(configs: Mapping[str, TrainConfig], dataset: Dataset) -> Speeds:
    """Print and return what both models take, here and in plain PyTorch."""
    n_items = dataset.vocabulary.n_items
    models = {
        name: Timed(config.model_config(n_items), dataset, config.trainer.seed)
        for name, config in configs.items()
    }
    reason = why_not_the_kernels(models["LARES"].model)
    if reason:
        print(f"{labelled('note:', f'{reason}; lares doctor says more')}\n")
    print(
        "here: this package; plain: the same models in eager PyTorch from the same\n"
        "weights, histories padded to the longest of a batch. Timed in turn, medians;\n"
        f"a step is {BATCH} histories, cross entropy over all items, backward, Adam;\n"
        "requests here check ids and weights, too.\n",
        flush=True,
    )
    for name, model in models.items():
        _print_agreement(name, model.agreement())
    speeds = timed(models, _SECONDS)
    print(f"\n{_TABLE}")
    for name in models:
        for speed in speeds:
            _print_speed(name, speed)
    print()
    trains, answers = (speed.faster("SASRec").median for speed in (speeds.epoch, speeds.many))
    _say(
        f"SASRec trains {_in_digits(trains)} times as fast as in plain PyTorch and answers "
        f"{speeds.many.what} {_in_digits(answers)} times as fast."
    )
    (train, answer), plainly = (
        [
            _in_digits(speed.longer("LARES", "SASRec", whose))
            for speed in (speeds.epoch, speeds.many)
        ]
        for whose in (HERE, PLAIN)
    )
    depth = models["LARES"].model.config.mean_depth
    _say(
        f"Thinking {depth} steps more, LARES takes {train} times as long as SASRec to train and "
        f"{answer} times to answer; in plain PyTorch {plainly[0]} and {plainly[1]} times."
    )
    return speeds


def _print_agreement(name: str, found: Agreement) -> None:
    _say(
        f"{name}: the same numbers: scores within {found.scores:.0e} of up to "
        f"{found.largest_score:.2f}, gradients within {found.gradients:.0e} of their norm, "
        f"{found.same_lists} of {found.lists} lists of {K} items the same",
        flush=True,
    )


def _print_speed(name: str, speed: Speed) -> None:
    here, plain = (_duration(speed.seconds(name, whose)) for whose in (HERE, PLAIN))
    ratio = speed.faster(name)
    print(
        f"{_LABEL}  {name:<8}{speed.what:<20}{here:>10}{plain:>10}"
        f"{_in_digits(ratio.median):>7}x  ({_in_digits(ratio.low)} to {_in_digits(ratio.high)})"
    )


def _in_digits(ratio: float) -> str:
    """Return a ratio in two digits or, from 100 on, as many as it has."""
    return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f}"


def _duration(seconds: float) -> str:
    """Return seconds in three digits and a unit."""
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{seconds * 1e3:.3g} ms"


def _trained(config: TrainConfig, run: RunFolder, dataset: Dataset) -> TrainResult:
    """Train LARES in a folder, or go on there."""
    on_cpu = replace(config, trainer=replace(config.trainer, accelerator="cpu"))
    print(
        f"\nA short training of LARES, epochs: {config.trainer.max_epochs} at most\n",
        flush=True,
    )
    with lines_labelled(_LABEL):
        return train(on_cpu, run.path, resume=run.config.is_file(), dataset=dataset)


def _recommend(run: RunFolder, dataset: Dataset) -> str:
    """Print a list for the first user who has few items, and return these, with commas."""
    sequences = dataset.sequences
    assert sequences is not None  # the file says who is who
    user = int(np.argmax(np.diff(sequences.offsets) <= _MOST_SHOWN))
    first, end = sequences.offsets[user : user + 2]
    history = dataset.vocabulary.decode(sequences.items[first:end].tolist())
    # Who draws by the law has items again.
    best = LaresModel.from_pretrained(run.best).recommend([history], k=5, remove_history=False)[0]
    print("\nA recommendation\n")
    _say(f"user {sequences.user_ids[user]} had {', '.join(history)}")
    _say(f"LARES recommends {', '.join(best)}; likeliest by the law is {follower(history[-1])}")
    return ",".join(history)
