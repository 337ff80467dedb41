"""Options of commands that read interactions as a run did: DATA, and ``--data.NAME`` for each other."""

from __future__ import annotations

from argparse import SUPPRESS
from pathlib import Path
from typing import Any, get_type_hints

from lares.cli.options import OptionParser
from lares.data.fetch.sets import is_data
from lares.errors import ConfigError
from lares.training.config import DataOptions


def add_data(parser: OptionParser, help: str) -> None:
    """Add the argument DATA, with this help."""
    parser.add_argument("path", metavar="DATA", nargs="?", help=help)


def add_data_options(parser: OptionParser) -> None:
    """Add the options of data, which are the run's unless they are given."""
    parser.judges["data"] = DataOptions
    # No defaults: options not given are those of the run, and null is a value.
    for name, kind in get_type_hints(DataOptions).items():
        if name != "path":
            parser.add_argument(
                f"--data.{name}",
                type=kind,
                default=SUPPRESS,
                help="Same as in train. Default: the run's.",
            )


def data_options(args: Any) -> dict[str, Any]:
    """Return the options of data that were given, checked."""
    given: dict[str, Any] = args.data.as_dict() if "data" in args else {}
    DataOptions(**given)  # checks them
    return given


def own_data(model: str, options: DataOptions | None) -> str:
    """Return where the data lie that a run was trained on, for one that is asked about no other.

    Args:
        model: folder of the run.
        options: how it read its data; None where ``model`` is no run.

    Raises:
        ConfigError: there are none.
    """
    if options is None:
        raise ConfigError(f"no data: {model} is no run, whose data would be taken; give DATA")
    if not options.path:
        raise ConfigError(f"no data: {model} was trained on data in memory; give DATA")
    path = Path(options.path)
    if not is_data(path):
        seen_from = "" if path.is_absolute() else f" (seen from the folder {Path.cwd()})"
        raise ConfigError(
            f"{model} was trained on {path}, which is not there{seen_from}; give DATA, the place "
            "where it is now"
        )
    return options.path
