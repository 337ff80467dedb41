"""``lares posttrain CHECKPOINT DATA``: RPT of a trained model into a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lares.cli.run_command import (
    SAMPLES_FLAG,
    RunCommand,
    look_first,
    print_metrics,
    saying_how_to_go_on,
)
from lares.training.config import PosttrainConfig
from lares.training.run_folder import find_model


def _options_of(found: Any) -> dict[str, Any]:
    """How the model's own run read its data, if it came from a run."""
    if not found.checkpoint:
        return {}
    _, data = find_model(found.checkpoint)
    return {} if data is None else {"data": dataclasses.asdict(data)}


def default_folder(checkpoint: str) -> Path:
    """``runs/NAME-rpt``."""
    return Path("runs") / f"{Path(checkpoint).resolve().name}-rpt"


def _possible_folders(found: Any) -> list[Path]:
    return [default_folder(found.checkpoint)] if found.checkpoint else []


COMMAND = RunCommand(
    name="posttrain",
    summary="Post-train a model by reinforcement. Options override --config.",
    config=PosttrainConfig,
    places={
        "CHECKPOINT": ("start", "checkpoint", "run folder or model folder to start from"),
        "DATA": ("data", "path", "file or folder of interactions; default: the run's"),
    },
    inherited="data",
    shortcuts=SAMPLES_FLAG,
    defaults=_options_of,
    folders=_possible_folders,
)


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares posttrain``."""
    config, found = COMMAND.parse(argv)
    assert isinstance(config, PosttrainConfig)
    folder = Path(found.out) if found.out else default_folder(config.start.checkpoint)
    look_first(config, folder, found.resume)
    # Imported here: the trainer brings the engine and its libraries, which --help can do without.
    from lares.training.engine import launch
    from lares.training.rpt import posttrain

    fabric = launch(config.trainer)
    show = not found.no_progress
    with saying_how_to_go_on(folder, COMMAND.name, fabric.is_global_zero):
        result = posttrain(config, folder, resume=found.resume, progress=show, fabric=fabric)
    if not fabric.is_global_zero:
        return
    print("Before:")
    print_metrics(result.start)
    print("\nAfter:")
    print_metrics(result.test)
    best = f"best epoch {result.best_epoch} of {result.epochs}"
    if result.best_epoch == 0:
        best = f"no epoch of {result.epochs} was better than the start on the validation samples"
    print(
        f"{best}, {result.seconds:.0f} s, {result.samples_per_second:.0f} samples/s; "
        f"run folder {folder}"
    )
