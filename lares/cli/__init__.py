"""The command line: ``lares COMMAND ...``. Each command is a module of this package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from lares import __version__
from lares.errors import LaresError
from lares.names import nearest
from lares_kernels.errors import BackendError

# Modules are imported when their command is called: help must not wait for torch.
COMMANDS = {
    "demo": "fetch MovieLens 100K, train a small LARES, compare it by reasoning depth",
    "train": "train on your interactions",
    "posttrain": "post-train a model by reinforcement",
    "evaluate": "Recall and NDCG of a trained model, by reasoning depth",
    "recommend": "the best next items for histories",
    "data": "fetch public data sets, describe a data file, make text features of items",
    "doctor": "what is installed, which backends can run, and why not",
}
EXIT_USAGE = 2


def usage() -> str:
    """Help of the whole program."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lares COMMAND [OPTIONS]",
            "",
            "Sequential recommendation with latent reasoning (LARES, arXiv 2505.16865).",
            "",
            "commands:",
            *lines,
            "",
            "'lares COMMAND --help' lists a command's options; 'lares --version' tells the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with status 2 where the user can mend the error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(f"lares {__version__}")
        return
    name, rest = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise LaresError(f"unknown command {name!r}; {nearest(name, COMMANDS)}")
        importlib.import_module(f"lares.cli.{name}").run(rest)
    except (LaresError, BackendError) as error:
        status = getattr(error, "exit_status", EXIT_USAGE)
        # A run that was asked to stop and did has made no mistake.
        print(("error: " if status == EXIT_USAGE else "") + str(error), file=sys.stderr)
        sys.exit(status)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; keep the interpreter's flush from failing.
        sys.stdout = None
        sys.exit(0)
