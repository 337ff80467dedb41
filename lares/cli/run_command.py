"""Commands that start or resume a run: every field of the run's configuration is an option."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lares.cli.options import OptionParser, command_parser, metrics_table
from lares.config import LaresConfig
from lares.errors import ConfigError
from lares.training.config import (
    RECIPES_FOLDER,
    RunConfig,
    merge_options,
    read_yaml,
    recipes,
)
from lares.training.run_folder import RunFolder

SAMPLES_FLAG = {
    "--samples": ("sampling", "samples", "prefixes or users: short for --sampling.samples")
}
_METRICS = ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
Options = dict[str, Any]


@dataclass(frozen=True)
class RunCommand:
    """A command and the kind of run it is for.

    Attributes:
        name, summary: of the command.
        config: kind of run.
        places: arguments without a flag, in order: (section, option, help) by the name that help shows.
        recipes: whether ``--recipe`` is offered.
        shortcuts: (section, option, help) by the flag that stands for it.
        defaults: options that come before those of files, from what the command line holds.
    """

    name: str
    summary: str
    config: type[RunConfig]
    places: Mapping[str, tuple[str, str, str]]
    recipes: bool = False
    shortcuts: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    defaults: Callable[[Any], Options] = field(default=lambda found: {})

    def parser(self) -> OptionParser:
        """Options of the command."""
        parser = command_parser(self.name, self.summary)
        for shown, (_, option, text) in self.places.items():
            parser.add_argument(option, nargs="?", metavar=shown, help=text)
        parser.add_argument("--config", metavar="FILE.yaml", help="options by section")
        if self.recipes:
            parser.add_argument("--recipe", default=None, help=f"one of {', '.join(recipes())}")
        for flag, (_, _, text) in self.shortcuts.items():
            parser.add_argument(flag, default=None, help=text)
        parser.add_argument("--out", metavar="RUN", help="run folder; default under runs/")
        parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
        parser.add_argument(
            "--no_progress", action="store_true", help="no bar and no line an epoch"
        )
        placed = {(section, option) for section, option, _ in self.places.values()}
        for name, section in self.config.SECTIONS.items():
            skip = {option for where, option in placed if where == name}
            if section is LaresConfig:
                skip.add("n_items")  # the data decide
            parser.add_class_arguments(section, name, skip=skip)
        return parser

    def parse(self, argv: Sequence[str]) -> tuple[RunConfig, Any]:
        """The configuration that the command line asks for, and the command's own options."""
        # Once to find --recipe, --config and --resume; again with what they hold as defaults, so that
        # only what is given on the command line overrides it.
        first = self.parser().parse_args(list(argv))
        start = self._starting_options(first)
        self.config.from_dict(start)  # names unknown options
        parser = self.parser()
        placed = {(section, option) for section, option, _ in self.places.values()}
        parser.set_defaults(
            {
                f"{section}.{name}": value
                for section, given in start.items()
                for name, value in (given or {}).items()
                if (section, name) not in placed
            }
        )
        found = parser.parse_args(list(argv))
        options: Options = {name: found[name].as_dict() for name in self.config.SECTIONS}
        for section, option in placed:
            options[section][option] = found[option] or (start.get(section) or {}).get(option) or ""
        for flag, (section, option, _) in self.shortcuts.items():
            if found[flag.lstrip("-")] is not None:
                options[section][option] = found[flag.lstrip("-")]
        if not options["data"]["path"]:
            raise ConfigError("no data: give DATA, a file or folder of interactions")
        return self.config.from_dict(options), found

    def _starting_options(self, first: Any) -> Options:
        """Options before those of the command line: the run's that is resumed, else recipe and file."""
        recipe = first.recipe if self.recipes else None
        if first.resume:
            if first.config or recipe:
                files = "--config and --recipe" if self.recipes else "--config"
                raise ConfigError(f"--resume takes the run's own config.yaml: leave {files}")
            if not first.out:
                raise ConfigError("--resume needs --out RUN, the run to go on with")
            return read_yaml(RunFolder(Path(first.out)).config)
        options = self.defaults(first)
        if recipe:
            if recipe not in recipes():
                raise ConfigError(f"recipe is {recipe!r}; it must be one of {', '.join(recipes())}")
            options = merge_options(options, read_yaml(RECIPES_FOLDER / f"{recipe}.yaml"))
        if first.config:
            options = merge_options(options, read_yaml(Path(first.config)))
        return options


def print_metrics(test: Mapping[int, dict[str, float]]) -> None:
    """Metrics by depth as a table."""
    print(metrics_table("depth", {str(d): m for d, m in test.items()}, _METRICS))
