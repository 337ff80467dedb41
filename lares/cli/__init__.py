"""The command line: ``lares COMMAND ...``. Each command is a module of this package."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from lares import __version__
from lares.cli.output import keep_closed_streams, takes_any_text
from lares.cli.stopping import STOPPED, stops_while_loading
from lares.cli.waiting import wait_briefly
from lares.errors import LaresError, refusal
from lares.names import nearest, one_line
from lares_kernels.spec.errors import BackendError

# Modules are imported when their command is called: help must not wait for torch.
COMMANDS = {
    "demo": "Fetch MovieLens 100K, train a small LARES, compare it by reasoning depth.",
    "train": "Train a model on your interactions.",
    "posttrain": "Post-train a model by reinforcement.",
    "evaluate": "Compute Recall and NDCG of a trained model, by reasoning depth.",
    "recommend": "Recommend the best next items for histories.",
    "runs": "List the runs in a folder, with what they came to.",
    "plot": "Draw runs side by side: training, and accuracy by depth, popularity and length.",
    "data": "Fetch public data sets, describe a data file, make text features of items.",
    "doctor": "Say what is installed, which backends can run, and why not.",
    "completion": "Print what a shell reads to complete commands and options.",
}
EXIT_USAGE = 2
_FIRST_SPEAKS_SECONDS = 0.5


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
    keep_closed_streams()
    try:
        with takes_any_text(), stops_while_loading(_is_first()):
            _run(arguments)
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk is told here, not as the interpreter ends
    except (LaresError, BackendError) as error:
        status = getattr(error, "exit_status", EXIT_USAGE)
        # A run that was asked to stop and did has made no mistake.
        _end(("error: " if status == EXIT_USAGE else "") + str(error), status)
    except UnicodeEncodeError as error:
        _end(
            f"error: {error.object!a} cannot be written in {error.encoding}, in which this system has "
            "its names; PYTHONUTF8=1 makes that UTF-8",
            EXIT_USAGE,
        )
    except KeyboardInterrupt:
        if _is_first():
            print("stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; keep the interpreter's flush from failing.
        sys.stdout = None
        sys.exit(0)
    except (MemoryError, RuntimeError) as error:
        reason = _of_the_system(error)
        if reason is None:
            raise
        _end(f"error: {reason}", EXIT_USAGE)
    except OSError as error:
        if _let_go_of_output() and error.filename is None:
            error.filename = "standard output"
        _end(f"error: {refusal(error)}", EXIT_USAGE)


def _run(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(f"lares {__version__}")
        return
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise LaresError(f"unknown command {name!r}; {nearest(name, COMMANDS)}")
    wait_briefly()
    importlib.import_module(f"lares.cli.{name}").run(rest)


def _of_the_system(error: Exception) -> str | None:
    """Return what to say of an error that is the machine's or the file system's; None of any other."""
    first = str(error).partition("\n")[0]
    if (
        isinstance(error, MemoryError)
        or "can't allocate memory" in first
        or "out of memory" in first
    ):
        return (
            f"memory does not suffice ({first or 'MemoryError'}): a smaller model.max_length, "
            "model.d_ff or batch size takes less"
        )
    # Of Path.resolve, before Python 3.13.
    return f"{first}: give another place" if first.startswith("Symlink loop") else None


def _end(message: str, status: int) -> NoReturn:
    """End the process with a message of one line, which of several processes one gives."""
    if _speaks():
        with contextlib.suppress(OSError):  # a full disk; the status tells, too
            print(one_line(message), file=sys.stderr, flush=True)
    else:
        time.sleep(_FIRST_SPEAKS_SECONDS)  # who started the processes ends all when one has ended
    sys.exit(status)


def _let_go_of_output() -> bool:
    """Keep the interpreter from writing what is left for standard output, if that takes no more.

    Returns:
        Whether it takes no more.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _is_first() -> bool:
    """Return whether this is the first of a run's processes on its machine, or the only one."""
    rank = os.environ.get("LOCAL_RANK", "0")
    return rank == "0" or not rank.isdecimal()  # else it is no rank


def _speaks() -> bool:
    """Return whether errors of this process are its own: before processes of a run know each other all
    of a machine make the same mistake."""
    if _is_first():
        return True
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and bool(
        distributed.is_available() and distributed.is_initialized()
    )
