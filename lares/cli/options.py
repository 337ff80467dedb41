"""The option parser that all commands share: its mistakes become one-line errors."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter

from lares.cli.examples import examples_of
from lares.errors import ConfigError
from lares.files import require_folder, require_writable
from lares.model.config import MOST_SEED, MOST_THREADS
from lares.names import as_typed, shown
from lares.pictures import FORMS
from lares.plain import (
    KINDS,
    Check,
    one_of,
    option,
    settle_options,
    whole,
    whole_in,
    without_none,
)

_Options = TypeVar("_Options")
# Options whose values are no names of files, and may be of any letters.
_TEXTS = (
    "history",
    "user_column",
    "item_column",
    "time_column",
    "text_columns",
    "delimiter",
    "where",
    "item_columns",
)
# Options whose values are names of files or folders.
PLACES = (
    *("out", "output", "per_user", "histories", "model", "path", "table", "checkpoint", "plot"),
    *("data", "users", "exclude", "only", "items"),
)
_SUGGESTED = 3  # options that may have been meant
_LONGEST = 1000  # letters of what jsonargparse says, which may be a whole value
# What it says of a value of another type, or of none of several.
_MISTYPED = re.compile(
    r'.*Parser key "([^"]+)":\s+(?:Expected a|Does not validate).*(?:Got|Given) value: ?(.*?)\s*',
    re.DOTALL,
)
_MISSING = re.compile(
    r"the following arguments are required: ([^,\s]+).*|"
    r'.*[Kk]ey "([^"]+)" is required but not included.*',
    re.DOTALL,
)
# What help calls the value of an option, by its type, where nothing else is said.
_METAVARS: dict[Any, str] = {
    int: "N",
    float: "X",
    str: "TEXT",
    bool: "{true,false}",
    list[int]: "[N,...]",
}


class _HelpFormatter(DefaultHelpFormatter):
    """Ends an option's sentences with its default, unless they say it or there is none to tell."""

    def _get_help_string(self, action: Any) -> str:
        if action.help is None or action.option_strings[:1] == ["-h"]:
            said: str = super()._get_help_string(action)
            return said
        # A flag without a value, and an argument, have no default that a reader needs.
        tells = (
            action.option_strings and action.nargs != 0 and "default:" not in action.help.lower()
        )
        default = _default_of(action) if tells else ""
        return f"{action.help} Default: {default}." if default else str(action.help)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill paragraphs, and leave lines that are indented, which are there to be typed, alone."""
        if "\n  " not in text:
            return super()._fill_text(text, width, indent)
        return text


class OptionParser(ArgumentParser):
    """``jsonargparse.ArgumentParser`` that raises :class:`ConfigError`, and names the option that an
    unknown one was most likely meant to be.

    Attributes:
        formerly: today's spelling of a flag, or of one with its value (``--flag=value``), by one that
            it had, which is taken with a warning.
        judges: what refuses a bad choice in its own words, called with it by its name, by section.
    """

    formerly: Mapping[str, str]
    judges: dict[str, Callable[..., object]]

    def parse_args(self, words: Sequence[str]) -> Any:  # type: ignore[override]
        """Parse arguments; those that are text are as they were typed, in UTF-8."""
        words = self._spelled_now(words)
        self._refuse_values(words)
        args = super().parse_args(words)
        for action in self._actions:
            if action.dest in PLACES and args.get(action.dest) == "":
                shown_as = (action.option_strings or [str(action.metavar)])[0]
                raise ConfigError(f"{shown_as} is ''; give the name of a file or folder")
        for name in list(args.keys()):
            if name.rpartition(".")[2] in _TEXTS and isinstance(args[name], str):
                args[name] = as_typed(args[name])
        return args

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
            pair = word if equals else "=".join(words[place : place + 2])
            if pair in self.formerly:
                former[pair] = self.formerly[pair]
                spelled[place : place + 1 + (not equals)] = former[pair].split("=", not equals)
        for old, new in former.items():
            print(f"warning: {old} is now spelled {new}", file=sys.stderr)
        return spelled

    def _refuse_values(self, words: Sequence[str]) -> None:
        """Raise ``ConfigError`` for what is no choice, of which versions of jsonargparse do not say
        what it is, and for a number such as ``1:30``, which YAML 1.1 reads as 90."""
        actions = {flag: action for action in self._actions for flag in action.option_strings}
        for word, following in zip(words, [*words, None][1:], strict=True):
            flag, equals, after = word.partition("=")
            value, action = after if equals else following, actions.get(flag)
            if value is None or action is None:
                continue
            if choices_of(action):
                self._refuse_choice(action, value)
            if ":" in value and _kind(action):
                raise ConfigError(f"{flag} is {shown(value)}; it must be {_kind(action)}")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message, re.IGNORECASE)
        if unknown:
            given = unknown.group(1).split("=")[0]
            if given.startswith("-"):
                known = [flag for action in self._actions for flag in action.option_strings]
                raise ConfigError(f"unknown option {given}; {self._suggestion(given, known)}")
            raise ConfigError(f"unexpected argument {given!r}; see {self.prog} --help")
        missing = _MISSING.fullmatch(message)
        if missing:
            action = self.option((missing.group(1) or missing.group(2)).removeprefix("--"))
            shown_as = (action.option_strings or [str(action.metavar)])[0]
            raise ConfigError(
                f"{shown_as} is missing: give {asked_for(str(action.help))}; see {self.prog} --help"
            )
        mistyped = _MISTYPED.fullmatch(message)
        if mistyped:
            name, value = mistyped.groups()
            kind = _kind(self.option(name))
            if kind:
                given = "null" if value == "None" else shown(value)
                raise ConfigError(f"--{name} is {given}; it must be {kind}") from ex
        raise ConfigError(" ".join(message.split())[:_LONGEST]) from ex

    def _suggestion(self, given: str, known: Sequence[str]) -> str:
        """Return which option may have been meant: one of that name in a section, or of a like one."""
        meant = given.lstrip("-").rpartition(".")[2].replace("-", "_").lower()
        names = {flag: flag.lstrip("-").rpartition(".")[2] for flag in known}
        for fits in (
            lambda name: name == meant,
            lambda name: len(meant) > 2 and meant in name.split("_"),
        ):
            found = [flag for flag, name in names.items() if fits(name)]
            if found:
                return f"did you mean {' or '.join(map(repr, found[:_SUGGESTED]))}?"
        near = difflib.get_close_matches(given, known, n=1) if "." in given else []
        for name in difflib.get_close_matches(meant, names.values(), n=1) if not near else ():
            near = [flag for flag in known if names[flag] == name]
        return f"did you mean {near[0]!r}?" if near else f"see {self.prog} --help"

    def format_help(self) -> str:  # type: ignore[override]
        """Return the help: how the command is typed in short, its options at length, examples."""
        places = [
            f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar)
            for action in self._actions
            if not action.option_strings and action.metavar
        ]
        self.usage = " ".join(["%(prog)s", *places, "[OPTIONS]"])
        for action in self._actions:
            if action.metavar is None and action.option_strings:
                action.metavar = _metavar_of(action)
        told: str = super().format_help()
        return told

    def option(self, name: str) -> Any:
        """Return the option, or the argument, of a name, with section."""
        return next(action for action in self._actions if action.dest == name)

    def _refuse_choice(self, action: Any, value: str) -> None:
        """Raise ``ConfigError`` if ``value`` is none of the choices that an option has."""
        section, _, name = action.dest.rpartition(".")
        if section in self.judges:
            self.judges[section](**{name: value})
        one_of(f"--{action.dest}", value, choices_of(action))


def choices_of(action: Any) -> tuple[str, ...]:
    """Return the words that an option's value is one of; none where it may be another."""
    typehint = getattr(action, "_typehint", None)
    return get_args(typehint) if get_origin(typehint) is Literal else ()


def _default_of(action: Any) -> str:
    """Return an option's default as it is typed; "" where it has none to tell."""
    value = action.default
    if value is None or value in ("", SUPPRESS):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).replace(" ", "")


def _metavar_of(action: Any) -> str | None:
    """Return what help calls an option's value by its type; None where that does not tell."""
    kind, _ = without_none(getattr(action, "_typehint", None))
    return _METAVARS.get(kind) if kind not in (None, list) else None


def _kind(action: Any) -> str:
    """Return what an option's value must be, in words; "" for text and choices."""
    kind, _ = without_none(getattr(action, "_typehint", None))
    return "" if kind is str else KINDS.get(kind, "")


def require_output(option: str, path: Path) -> None:
    """Raise ``ConfigError`` if it can be told beforehand that ``option``'s file cannot be written."""
    try:
        require_writable(path)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error}") from error


def require_picture(option: str, name: str) -> Path:
    """Return the file for a picture that ``option`` names.

    Raises:
        ConfigError: it has no suffix of a picture, or it can be told that it cannot be written.
    """
    path = Path(name)
    if path.suffix.lower() not in FORMS:
        *most, last = FORMS
        raise ConfigError(f"{option} is {name!r}; it must end in {', '.join(most)} or {last}")
    require_output(option, path)
    return path


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
        epilog=examples_of(command),
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.formerly, parser.judges = formerly or {}, {}
    return parser


DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def numbers_in(least: int, most: int | None = None) -> Check:
    """Return the check that text holds whole numbers in ``least..most``, with commas between them."""

    def check(name: str, text: str) -> None:
        for number in whole_numbers(name, text):
            whole(name, number, least, most)

    return check


def known_device(name: str, device: str) -> None:
    """Raise ``ConfigError`` unless ``device`` can be meant, whether there is such a one or not."""
    kind, colon, number = device.partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise ConfigError(
            f"{name} {device} cannot be used: it must be one of {', '.join(DEVICES)}, and all "
            "but auto may have a number, such as cuda:1"
        )


@dataclass(frozen=True)
class ComputingOptions:
    """Options of commands that run a trained model.

    Attributes:
        seed: Seed of drawn initial states. Default: the model's.
        device: Device, such as cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one.
        num_threads: Number of threads on the CPU. Default: torch's setting.
    """

    seed: int | None = option(None, whole_in(0, MOST_SEED))
    device: str = option("auto", known_device)
    num_threads: int | None = option(None, whole_in(1, MOST_THREADS))

    def __post_init__(self) -> None:
        settle_options(self, "--")


def add_options(parser: OptionParser, options: type, metavars: Mapping[str, str] = {}) -> None:
    """Add the fields of a dataclass as options, with what its docstring says of them as help.

    Those that are false unless asked for are flags.

    Args:
        parser: to add them to.
        options: dataclass whose fields have defaults.
        metavars: what help calls text that an option takes, where that says more than its name.
    """
    # jsonargparse would run what the command's module imports for type checkers alone, torch too.
    described = docstring_parser.parse(options.__doc__ or "")
    about = {each.arg_name: " ".join((each.description or "").split()) for each in described.params}
    kinds = get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = kinds[field.name]
        more: dict[str, Any] = {"default": field.default, "metavar": metavars.get(field.name)}
        if kind is bool:
            more = {"action": "store_true"}
        elif kind not in (str, str | None):  # text stays as it is
            more = {"default": field.default, "type": kind}
        parser.add_argument(f"--{field.name}", help=about[field.name], **more)


def checked(args: Any, options: type[_Options]) -> _Options:
    """Return the options of a dataclass among parsed arguments, checked.

    Raises:
        ConfigError: a value is out of range.
    """
    return options(**{field.name: args[field.name] for field in dataclasses.fields(options)})  # type: ignore[arg-type]


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
    widths = [max(10, len(name)) for name in columns]
    names = zip(columns, widths, strict=True)
    header = f"{title:<{width}}" + "".join(f"  {name.upper():>{wide}}" for name, wide in names)
    lines = [header, "-" * len(header)]
    for name, metrics in rows.items():
        values = zip((metrics[column] for column in columns), widths, strict=True)
        cells = (f"  {v:>{w}{',' if isinstance(v, int) else '.4f'}}" for v, w in values)
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(lines)
