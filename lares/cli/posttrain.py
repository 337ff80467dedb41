"""``lares posttrain CHECKPOINT DATA``: RPT of a trained model into a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lares.cli.run_command import SAMPLES_FLAG, RunCommand, carry_out
from lares.training.config import PosttrainConfig
from lares.training.run_folder import find_model


def _options_of(args: Any) -> dict[str, Any]:
    """Return how the model's own run read its data; nothing if it came from no run."""
    if not args.checkpoint:
        return {}
    _, data = find_model(args.checkpoint)
    return {} if data is None else {"data": dataclasses.asdict(data)}


def default_folder(checkpoint: str) -> Path:
    """``runs/NAME-rpt``."""
    return Path("runs") / f"{Path(checkpoint).resolve().name}-rpt"


def _possible_folders(args: Any) -> list[Path]:
    return [default_folder(args.checkpoint)] if args.checkpoint else []


COMMAND = RunCommand(
    name="posttrain",
    summary="Post-train a model by reinforcement. Options override --config.",
    config=PosttrainConfig,
    places={
        "CHECKPOINT": ("start", "checkpoint", "Run folder or model folder to start from."),
        "DATA": ("data", "path", "File or folder of interactions. Default: the run's."),
    },
    inherited="data",
    shortcuts=SAMPLES_FLAG,
    defaults=_options_of,
    folders=_possible_folders,
)


build_parser = COMMAND.parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares posttrain``."""
    config, args = COMMAND.parse(argv)
    assert isinstance(config, PosttrainConfig)
    folder = Path(args.out) if args.out else default_folder(config.start.checkpoint)
    carry_out(COMMAND, "lares.training.rpt", config, folder, args)
