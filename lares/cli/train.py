"""``lares train DATA``: SPT training into a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lares.cli.options import OptionParser, command_parser, metrics_table
from lares.config import LaresConfig
from lares.errors import ConfigError
from lares.objectives.spt import SptConfig
from lares.training.config import (
    RECIPES_FOLDER,
    DataOptions,
    OptimizerOptions,
    TrainConfig,
    TrainerOptions,
    merge_options,
    read_yaml,
    recipes,
)
from lares.training.run_folder import RunFolder

_SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "model": LaresConfig,
    "objective": SptConfig,
    "optimizer": OptimizerOptions,
    "trainer": TrainerOptions,
}
_METRICS = ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]


def build_parser() -> OptionParser:
    """Options of the command; every field of the configuration is one."""
    parser = command_parser(
        "train", "Train a model. Options override --config, which overrides --recipe."
    )
    parser.add_argument("path", nargs="?", metavar="DATA", help="file or folder of interactions")
    parser.add_argument("--config", metavar="FILE.yaml", help="options by section")
    parser.add_argument("--recipe", default=None, help=f"one of {', '.join(recipes())}")
    parser.add_argument("--out", metavar="RUN", help="run folder; default runs/DATA-RECIPE")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--no_progress", action="store_true", help="no bar and no line an epoch")
    for name, section in _SECTIONS.items():
        # The data decide n_items, and DATA is their path.
        skip = {LaresConfig: {"n_items"}, DataOptions: {"path"}}.get(section, set())
        parser.add_class_arguments(section, name, skip=skip)
    return parser


def starting_options(first: Any) -> dict[str, Any]:
    """Options before those of the command line: the run's that is resumed, else recipe and file."""
    if first.resume:
        if first.config or first.recipe:
            raise ConfigError(
                "--resume takes the run's own config.yaml: leave --config and --recipe"
            )
        if not first.out:
            raise ConfigError("--resume needs --out RUN, the run to go on with")
        return read_yaml(RunFolder(Path(first.out)).config)
    options: dict[str, Any] = {}
    if first.recipe:
        if first.recipe not in recipes():
            raise ConfigError(
                f"recipe is {first.recipe!r}; it must be one of {', '.join(recipes())}"
            )
        options = read_yaml(RECIPES_FOLDER / f"{first.recipe}.yaml")
    if first.config:
        options = merge_options(options, read_yaml(Path(first.config)))
    return options


def parse(argv: Sequence[str]) -> tuple[TrainConfig, Any]:
    """The configuration that the command line asks for, and the command's own options."""
    # Once to find --recipe, --config and --resume; again with what they hold as defaults, so that
    # only what is given on the command line overrides it.
    first = build_parser().parse_args(list(argv))
    start = starting_options(first)
    TrainConfig.from_dict(merge_options({"data": {"path": ""}}, start))  # names unknown options
    parser = build_parser()
    parser.set_defaults(
        {
            f"{section}.{name}": value
            for section, given in start.items()
            for name, value in (given or {}).items()
            if (section, name) != ("data", "path")
        }
    )
    found = parser.parse_args(list(argv))
    options: dict[str, Any] = {name: found[name].as_dict() for name in _SECTIONS}
    options["data"]["path"] = found.path or (start.get("data") or {}).get("path")
    if not options["data"]["path"]:
        raise ConfigError("no data: give DATA, a file or folder of interactions")
    return TrainConfig.from_dict(options), found


def default_folder(config: TrainConfig, recipe: str | None) -> Path:
    """``runs/DATA-RECIPE``."""
    return Path("runs") / f"{Path(config.data.path).name.split('.')[0]}-{recipe or 'lares'}"


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares train``."""
    config, found = parse(argv)
    # Imported here: the trainer brings the engine and its libraries, which --help can do without.
    from lares.training.trainer import launch, train

    fabric = launch(config)
    folder = Path(found.out) if found.out else default_folder(config, found.recipe)
    show = not found.no_progress
    result = train(config, folder, resume=found.resume, progress=show, fabric=fabric)
    if not fabric.is_global_zero:
        return
    print(metrics_table("depth", {str(d): m for d, m in result.test.items()}, _METRICS))
    print(
        f"best epoch {result.best_epoch} of {result.epochs}, {result.seconds:.0f} s, "
        f"{result.samples_per_second:.0f} samples/s; run folder {folder}"
    )
