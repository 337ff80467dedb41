"""The option parser that all commands share: its mistakes become one-line errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from lares.errors import ConfigError
from lares.files import require_folder, require_writable
from lares.model.config import MOST_SEED, MOST_THREADS
from lares.names import as_typed, nearest, shown

# Options whose values are no names of files, and may be of any letters.
_TEXTS = ("history", "user_column", "item_column", "time_column", "text_columns", "delimiter")


# Options whose values are names of files or folders.
_PLACES = ("out", "output", "histories", "model", "path", "table", "checkpoint")
_LONGEST = 1000  # letters of what jsonargparse says, which may be a whole value
# What it says of a value of another type, or of none of several.
_MISTYPED = re.compile(
    r'.*Parser key "([^"]+)":\s+(?:Expected a|Does not validate .* Subtypes: \[)\s*'
    r"<class '(int|float|bool|list)'>.*(?:Got|Given) value: ?(.*?)\s*",
    re.DOTALL,
)
_MISSING = re.compile(
    r"the following arguments are required: ([^,\s]+).*|"
    r'.*[Kk]ey "([^"]+)" is required but not included.*',
    re.DOTALL,
)
_PARSERS_DEFAULT = re.compile(r" \(default: %\(default\)s\)|, default: %\(default\)s")
_NUMBERS = re.compile("list|int|float")  # in how a type is written
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list, such as [1,2]",
}


class _HelpFormatter(DefaultHelpFormatter):
    """Tells the parser's default of options whose help says nothing of one, and of no argument."""

    def _get_help_string(self, action: Any) -> str:
        said: str = super()._get_help_string(action)
        says_itself = not action.option_strings or said.lower().count("default:") > 1
        return _PARSERS_DEFAULT.sub("", said) if says_itself else said


class OptionParser(ArgumentParser):
    """``jsonargparse.ArgumentParser`` that raises :class:`ConfigError`, and names the option that an
    unknown one was most likely meant to be.

    Attributes:
        formerly: today's spelling of a flag by one that it had, which is taken with a warning.
    """

    formerly: Mapping[str, str] = {}

    def parse_args(self, words: Sequence[str]) -> Any:  # type: ignore[override]
        """Parse arguments; those that are text are as they were typed, in UTF-8."""
        words = self._spelled_now(words)
        self._refuse_base_60(words)
        found = super().parse_args(words)
        for action in self._actions:
            if action.dest in _PLACES and found.get(action.dest) == "":
                shown_as = (action.option_strings or [str(action.metavar)])[0]
                raise ConfigError(f"{shown_as} is ''; give the name of a file or folder")
        for name in list(found.keys()):
            if name.rpartition(".")[2] in _TEXTS and isinstance(found[name], str):
                found[name] = as_typed(found[name])
        return found

    def _match_arguments_partial(self, actions: Any, pattern: str) -> list[int]:
        """Keep an argument that may be left out for what stands behind further options.

        Before 3.12.7 argparse has it left out as soon as an option comes, and refuses what follows.
        """
        counts: list[int] = super()._match_arguments_partial(actions, pattern)
        while "O" in pattern and counts and counts[-1] == 0:
            counts.pop()
        return counts

    def _spelled_now(self, words: Sequence[str]) -> list[str]:
        """Return ``words`` with flags as they are spelled today; warn once of each other spelling."""
        spelled, former = list(words), {}
        for place, word in enumerate(words):
            flag, equals, value = word.partition("=")
            if flag == "--":
                break
            if flag in self.formerly:
                former[flag] = self.formerly[flag]
                spelled[place] = former[flag] + equals + value
        for old, new in former.items():
            print(f"warning: {old} is now spelled {new}", file=sys.stderr)
        return spelled

    def _refuse_base_60(self, words: Sequence[str]) -> None:
        """Raise ``ConfigError`` for a number such as ``1:30``, which YAML 1.1 reads as 90."""
        kinds = {
            flag: str(getattr(action, "_typehint", ""))
            for action in self._actions
            for flag in action.option_strings
        }
        for word, following in zip(words, [*words, ""][1:], strict=True):
            flag, equals, value = word.partition("=")
            kind = _NUMBERS.search(kinds.get(flag, ""))
            value = value if equals else following
            if kind and ":" in value:
                raise ConfigError(f"{flag} is {shown(value)}; it must be {_KINDS[kind.group()]}")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message, re.IGNORECASE)
        if unknown:
            given = unknown.group(1).split("=")[0]
            if given.startswith("-"):
                known = [flag for action in self._actions for flag in action.option_strings]
                raise ConfigError(f"unknown option {given}; {nearest(given, known)}")
            raise ConfigError(f"unexpected argument {given!r}; see {self.prog} --help")
        missing = _MISSING.fullmatch(message)
        if missing:
            name = (missing.group(1) or missing.group(2)).removeprefix("--")
            action = next(action for action in self._actions if action.dest == name)
            shown_as = (action.option_strings or [str(action.metavar)])[0]
            raise ConfigError(
                f"{shown_as} is missing: give {asked_for(str(action.help))}; see {self.prog} --help"
            )
        mistyped = _MISTYPED.fullmatch(message)
        if mistyped:
            name, kind, value = mistyped.groups()
            given = "null" if value == "None" else shown(value)
            raise ConfigError(f"--{name} is {given}; it must be {_KINDS[kind]}") from ex
        raise ConfigError(" ".join(message.split())[:_LONGEST]) from ex


def require_at_least(option: str, value: int | None, least: int) -> None:
    """Raise ``ConfigError`` if ``option`` was given and is below ``least``."""
    if value is not None and value < least:
        raise ConfigError(f"{option} is {value}; it must be at least {least}")


def require_in(option: str, value: int | None, least: int, most: int) -> None:
    """Raise ``ConfigError`` if ``option`` was given and is not in ``least..most``."""
    if value is not None and not least <= value <= most:
        raise ConfigError(f"{option} is {value}; it must be in {least}..{most}")


def require_output(option: str, path: Path) -> None:
    """Raise ``ConfigError`` if it can be told beforehand that ``option``'s file cannot be written."""
    try:
        require_writable(path)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error}") from error


def require_place(option: str, folder: Path) -> None:
    """Raise ``ConfigError`` if it can be told beforehand that ``option`` cannot be a folder to fill."""
    try:
        require_folder(folder)
    except OSError as error:
        raise ConfigError(f"{option} {folder} cannot be filled: {error}") from error


def asked_for(text: str) -> str:
    """Return the first sentence of an option's help as a part of another sentence."""
    first = text.partition(". ")[0].removesuffix(".")
    return first[:1].lower() + first[1:]


def whole_numbers(option: str, text: str) -> list[int]:
    """The numbers of ``option``, given with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"{option} is {shown(text)}; it must be whole numbers with commas between them, "
            "such as 1,2,4"
        ) from None


def command_parser(
    command: str, description: str, formerly: Mapping[str, str] | None = None
) -> OptionParser:
    """Return the parser of ``lares COMMAND``, whose flags were spelled as ``formerly`` says."""
    parser = OptionParser(
        prog=f"lares {command}",
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.formerly = formerly or {}
    return parser


DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def add_threads(parser: ArgumentParser) -> None:
    """Add ``--num_threads``, for commands that compute."""
    parser.add_argument(
        "--num_threads", type=int, help="Number of threads on the CPU. Default: torch's setting."
    )


def add_computing(parser: ArgumentParser) -> None:
    """Add ``--seed``, ``--device`` and ``--num_threads``, for commands that run a trained model."""
    add = parser.add_argument
    add("--seed", type=int, help="Seed of drawn initial states. Default: the model's.")
    about = "Device, such as cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one."
    add("--device", default="auto", help=about)
    add_threads(parser)


def require_computing(found: Any) -> None:
    """Raise ``ConfigError`` unless the options of :func:`add_computing` can be meant.

    It is not looked whether there is such a device.
    """
    require_in("--seed", found.seed, 0, MOST_SEED)
    require_in("--num_threads", found.num_threads, 1, MOST_THREADS)
    kind, colon, number = found.device.partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise ConfigError(
            f"--device {found.device} cannot be used: it must be one of {', '.join(DEVICES)}, and all "
            "but auto may have a number, such as cuda:1"
        )


def choose_device(name: str, num_threads: int | None) -> Any:
    """Return the torch device called ``name``.

    Raises:
        ConfigError: there is no such device here, or no such backend as ``LARES_BACKEND`` names.
    """
    import torch

    from lares.model.backend import require_backend

    require_backend()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--device {name} cannot be used: {reason}; cpu always can, and auto takes what there is"
        ) from None
    return device


def metrics_table(title: str, rows: dict[str, dict[str, float]], columns: list[str]) -> str:
    """Metrics by row, and whole numbers beside them, as a plain table."""
    width = max(len(title), *map(len, rows))
    header = f"{title:<{width}}" + "".join(f"  {name.upper():>10}" for name in columns)
    lines = [header, "-" * len(header)]
    for name, metrics in rows.items():
        values = (metrics[column] for column in columns)
        cells = (f"{v:>12,}" if isinstance(v, int) else f"{v:>12.4f}" for v in values)
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(lines)
