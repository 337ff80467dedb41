"""``lares train DATA``: SPT training into a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lares.cli.run_command import SAMPLES_FLAG, RunCommand, carry_out
from lares.data.file_names import last_name
from lares.training.config import DEFAULT_RECIPE, TrainConfig, recipes


def default_folder(path: str, recipe: str | None) -> Path:
    """``runs/DATA-RECIPE``."""
    name = last_name(Path(path)).lstrip(".").split(".")[0] or "data"
    return Path("runs") / f"{name}-{recipe or 'lares'}"


def _possible_folders(args: Any) -> list[Path]:
    """Return where a run on these data can be, by its recipe where that is given."""
    if not args.path:
        return []
    names = [args.recipe] if args.recipe else [None, *recipes()]
    return [default_folder(args.path, name) for name in names]


COMMAND = RunCommand(
    name="train",
    summary="Train a model. Options override --config, which overrides --recipe.",
    config=TrainConfig,
    places={
        "DATA": ("data", "path", "File or folder of interactions, or a name of 'lares data get'.")
    },
    recipe=DEFAULT_RECIPE,
    shortcuts=SAMPLES_FLAG,
    folders=_possible_folders,
)


build_parser = COMMAND.parser


def parse(argv: Sequence[str]) -> tuple[TrainConfig, Any]:
    """The configuration that the command line asks for, and the command's own options."""
    config, args = COMMAND.parse(argv)
    assert isinstance(config, TrainConfig)
    return config, args


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares train``."""
    config, args = parse(argv)
    folder = Path(args.out) if args.out else default_folder(config.data.path, args.recipe)
    carry_out(COMMAND, "lares.training.spt", config, folder, args)
