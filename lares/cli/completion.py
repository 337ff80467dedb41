"""``lares completion SHELL``: what a shell needs to complete commands, options and their choices."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence

import shtab

from lares.cli import COMMANDS
from lares.cli.options import PLACES, OptionParser, choices_of, command_parser
from lares.plain import one_of

SHELLS = tuple(shtab.SUPPORTED_SHELLS)


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "completion",
        "Print what a shell reads to complete commands, options and their choices.",
    )
    parser.add_argument("shell", metavar="SHELL", help=f"Shell: {', '.join(SHELLS)}.")
    return parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares completion``."""
    args = build_parser().parse_args(list(argv))
    one_of("SHELL", args.shell, SHELLS)
    print(shtab.complete(whole_parser(), shell=args.shell))


def command_parsers() -> Iterator[tuple[str, OptionParser]]:
    """Yield every command, and those of ``lares data``, with its parser."""
    for name in COMMANDS:
        module = importlib.import_module(f"lares.cli.{name}")
        parsers = module.PARSERS if hasattr(module, "PARSERS") else {"": module.build_parser}
        for part, build in parsers.items():
            yield f"{name} {part}".strip(), build()


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser of the whole command line, which knows names and choices alone."""
    root = argparse.ArgumentParser("lares", add_help=False)
    levels = {"": root.add_subparsers()}
    for command, parser in command_parsers():
        above, _, name = command.rpartition(" ")
        if above not in levels:
            levels[above] = levels[""].add_parser(above, help=COMMANDS[above]).add_subparsers()
        said = str(parser.description).replace("%", "%%")
        _copy_options(parser, levels[above].add_parser(name, help=said, add_help=False))
    return root


def _copy_options(parser: OptionParser, plain: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        said = (action.help or "").replace("%", "%%")
        names = action.option_strings or [action.dest]
        if action.nargs == 0:
            copied = plain.add_argument(*names, action="store_true", help=said)
        else:
            nargs = None if action.option_strings else action.nargs
            choices = choices_of(action) or None
            copied = plain.add_argument(*names, nargs=nargs, choices=choices, help=said)
        if action.dest.rpartition(".")[2] in PLACES or action.dest == "config":
            copied.complete = shtab.FILE  # type: ignore[attr-defined]
