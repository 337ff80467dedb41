"""Commands that start or resume a run: every field of the run's configuration is an option."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lares.cli.options import OptionParser, asked_for, command_parser, metrics_table
from lares.data.fetch.sets import located
from lares.errors import ConfigError, LaresError
from lares.model.config import FORMERLY, LaresConfig, renamed_choices
from lares.model.folders import is_run
from lares.names import shown
from lares.plain import one_of
from lares.training.config import (
    RECIPES_FOLDER,
    RunConfig,
    merge_options,
    read_run_options,
    recipes,
)
from lares.training.interrupts import Interrupted
from lares.training.options_file import read_yaml
from lares.training.run_folder import RunFolder

SAMPLES_FLAG = {
    "--samples": ("sampling", "samples", "Short for --sampling.samples: prefixes or users.")
}
_PLACED = {"path": "data", "checkpoint": "model"}  # what options that have a place are
# In what torch.distributed's backends raise in the processes that are left.
_OF_A_LOST_PROCESS = ("gloo/transport", "Connection closed by", "Connection reset by", "NCCL")
# What a launcher tells each process, and the least that it can be.
_OF_A_LAUNCHER = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
_FORMER_CHOICES = {
    f"--model.{name}={before}": f"--model.{name}={now}"
    for name, names in FORMERLY.items()
    for before, now in names.items()
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
        inherited: section of options that are by default those of the run that a run starts from.
        recipe: that options start from unless ``--recipe`` names another; "" where none is offered.
        shortcuts: (section, option, help) by the flag that stands for it.
        defaults: options that come before those of files, from what the command line holds.
        folders: where a run goes that is given no ``--out``, from what the command line holds; several
            where that does not tell, none where it tells nothing.
    """

    name: str
    summary: str
    config: type[RunConfig]
    places: Mapping[str, tuple[str, str, str]]
    inherited: str = ""
    recipe: str = ""
    shortcuts: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    defaults: Callable[[Any], Options] = field(default=lambda args: {})
    folders: Callable[[Any], list[Path]] = field(default=lambda args: [])

    def parser(self) -> OptionParser:
        """Options of the command."""
        parser = command_parser(self.name, self.summary, _FORMER_CHOICES)
        add = parser.add_argument
        for place, (_, option, text) in self.places.items():
            add(option, nargs="?", metavar=place, help=text)
        add(
            "--config",
            metavar="FILE.yaml",
            action="append",
            help="File of options by section; of several files a later one overrides.",
        )
        if self.recipe:
            add(
                "--recipe",
                default=None,
                help=f"Recipe: {', '.join(recipes())}. Default: {self.recipe}.",
            )
        for flag, (_, _, text) in self.shortcuts.items():
            add(flag, default=None, help=text)
        add("--out", metavar="RUN", help="Run folder. Default: a folder under runs/.")
        add("--resume", action="store_true", help="Go on with a run.")
        add("--no_progress", action="store_true", help="Show no bar and no line for each epoch.")
        for name, section in self.config.SECTIONS.items():
            skip = {option for where, option in self._placed if where == name}
            if section is LaresConfig:
                skip.add("n_items")  # the data decide
            parser.add_class_arguments(section, name, skip=skip)
            parser.judges[name] = partial(section, 2) if section is LaresConfig else section
            file = parser.option(name)
            file.help, file.metavar = f"File of options of {name} alone.", "FILE.yaml"
        if self.recipe:  # so that help tells what will be
            self._set_defaults(parser, _read_recipe(self.recipe))
        for action in parser._actions:
            if self.inherited and action.dest.startswith(f"{self.inherited}."):
                action.help = f"{action.help} Default: the run's."
        return parser

    def parse(self, argv: Sequence[str]) -> tuple[RunConfig, Any]:
        """The configuration that the command line asks for, and the command's own options; ``out`` is
        among them where a run is resumed."""
        # Once to find --recipe, --config and --resume; again with what they hold as defaults, so that
        # only what is given on the command line overrides it.
        parser = self.parser()
        first = parser.parse_args(list(argv))
        resumed = self._resumed(first) if first.resume else None
        start = self._starting_options(first, resumed)
        self.config.from_dict(start)  # names unknown options
        self._set_defaults(parser, merge_options(self.config.from_dict({}).to_dict(), start))
        args = parser.parse_args(list(argv))
        if resumed is not None:
            args.out = str(resumed.path)
        options: Options = {name: args[name].as_dict() for name in self.config.SECTIONS}
        for section, option in self._placed:
            options[section][option] = args[option] or (start.get(section) or {}).get(option) or ""
        for flag, (section, option, _) in self.shortcuts.items():
            if args[flag.lstrip("-")] is not None:
                options[section][option] = args[flag.lstrip("-")]
        for place, (section, option, text) in self.places.items():
            if not options[section][option]:
                raise ConfigError(f"no {_PLACED[option]}: give {place}, {asked_for(text)}")
        return self.config.from_dict(options), args

    @property
    def _placed(self) -> set[tuple[str, str]]:
        """Section and name of the options that have a place instead of a flag."""
        return {(section, option) for section, option, _ in self.places.values()}

    def _set_defaults(self, parser: OptionParser, options: Options) -> None:
        """Let the parser take ``options`` where the command line gives nothing."""
        parser.set_defaults(
            {
                f"{section}.{name}": value
                for section, given in options.items()
                for name, value in renamed_choices(given or {}).items()
                if (section, name) not in self._placed
            }
        )

    def _resumed(self, first: Any) -> RunFolder:
        """Return the run to go on with."""
        if first.out:
            if not is_run(Path(first.out)):
                raise ConfigError(f"--resume: there is no run in {first.out}")
            return RunFolder(Path(first.out))
        possible = self.folders(first)
        runs = [folder for folder in possible if is_run(folder)]
        if len(runs) == 1:
            return RunFolder(runs[0])
        named = " or ".join(map(str, runs or possible))
        reason = "there are several runs," if runs else "there is no run in"
        raise ConfigError("--resume needs --out RUN" + f": {reason} {named}" * bool(named))

    def _starting_options(self, first: Any, resumed: RunFolder | None) -> Options:
        """Return options that flags override: those of the resumed run, else of recipe and files."""
        recipe = first.recipe if self.recipe else None
        if resumed is not None:
            if first.config or (recipe and first.out):
                files = "--config and --recipe" if self.recipe else "--config"
                raise ConfigError(f"--resume takes the run's own config.yaml: leave {files}")
            return read_run_options(resumed.config)
        options = self.defaults(first)
        recipe = recipe or self.recipe
        if recipe:
            options = merge_options(options, _read_recipe(recipe))
        for file in first.config or []:
            options = merge_options(options, read_yaml(Path(file)))
        return options


def _read_recipe(name: str) -> Options:
    one_of("recipe", name, recipes())
    return read_yaml(RECIPES_FOLDER / f"{name}.yaml")


def require_launcher() -> None:
    """Raise ``ConfigError`` if what tells processes of each other is no number."""
    for name, least in _OF_A_LAUNCHER.items():
        value = os.environ.get(name, str(least))
        if not (value.isascii() and value.isdecimal() and int(value) >= least):
            raise ConfigError(
                f"{name} is {shown(value)} in the environment; torchrun sets it to a whole number of "
                f"at least {least}, and a run by itself needs none: unset it"
            )


def look_first(config: RunConfig, folder: Path, resume: bool) -> None:
    """See before the engine comes what can be wrong with folder and data; it has processes agree.

    Args:
        config: of the run.
        folder: of the run.
        resume: whether it is to go on.

    Raises:
        ConfigError, DataError: the run cannot have the folder, there are no data, or the environment
            says nonsense of a launcher.
    """
    require_launcher()
    if "LOCAL_RANK" in os.environ:
        return
    RunFolder(folder).look(config, resume)
    located(config.data.path)


@contextlib.contextmanager
def saying_how_to_go_on(folder: Path, command: str, is_first: bool) -> Iterator[None]:
    """Say how to go on with what a run had saved, where it is stopped at once or another of its
    processes is gone.

    Args:
        folder: of the run.
        command: that goes on, after lares.
        is_first: of the run's processes, the one that speaks.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not is_first or not is_run(folder):
            raise
        raise Interrupted(
            "stopped at once; what was saved last goes on with --resume: "
            f"{RunFolder(folder).resume_command(command)}"
        ) from None
    except RuntimeError as error:
        reason = str(error)
        lost = any(sign in reason for sign in _OF_A_LOST_PROCESS)
        if not lost or isinstance(error, LaresError):
            raise
        if not is_first:
            sys.exit(LaresError.exit_status)
        again = RunFolder(folder).resume_command(command)
        saved = f"; what was saved last goes on with --resume: {again}" * is_run(folder)
        raise LaresError(
            f"another process of the run has ended, or cannot be reached ({reason.splitlines()[0]})"
            + saved
        ) from error


def carry_out(command: RunCommand, module: str, config: RunConfig, folder: Path, args: Any) -> None:
    """Start a run, or go on with it, and print what it came to.

    Args:
        command: that does so.
        module: where the function of the command's name is.
        config: of the run.
        folder: of the run.
        args: the command's own options.
    """
    look_first(config, folder, args.resume)
    # Imported here: the trainer brings the engine and its libraries, which --help can do without.
    from lares.training.engine import launch

    entry = getattr(importlib.import_module(module), command.name)
    fabric = launch(config.trainer)
    show = not args.no_progress
    with saying_how_to_go_on(folder, command.name, fabric.is_global_zero):
        result = entry(config, folder, resume=args.resume, progress=show, fabric=fabric)
    if not fabric.is_global_zero:
        return
    for ranking, rows in result.compared.items():
        print(f"Test, {ranking}:")
        print(metrics_table("model", rows, _METRICS) + "\n")
    if not result.compared:
        if result.start:
            print("Before:")
            print_metrics(result.start)
            print("\nAfter:")
        print_metrics(result.test)
    best = f"best epoch {result.best_epoch} of {result.epochs}"
    if result.start and result.best_epoch == 0:
        best = f"no epoch of {result.epochs} was better than the start on the validation samples"
    print(
        f"{best}, {result.seconds:.0f} s, {result.samples_per_second:.0f} samples/s; "
        f"run folder {folder}"
    )
    run = RunFolder(folder)
    print(f"curves: {run.curves}\nnext: {run.next_command()}")


def print_metrics(test: Mapping[int, dict[str, float]]) -> None:
    """Metrics by depth as a table."""
    print(metrics_table("depth", {str(d): m for d, m in test.items()}, _METRICS))
