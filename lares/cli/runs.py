"""``lares runs [FOLDER]``: the runs in a folder with what they came to, as a table."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lares.cli.options import OptionParser, add_options, checked, command_parser, require_output
from lares.data.file_names import last_name
from lares.errors import ConfigError
from lares.files import write_text
from lares.names import one_line
from lares.plain import settle_options
from lares.training.config import PosttrainConfig
from lares.training.summary import RunSummary, data_name, find_runs, shown_name, summary_of

Column = Literal[
    "name",
    "kind",
    "data",
    "recipe",
    "epochs",
    "valid",
    "ndcg",
    "recall",
    "seconds",
    "date",
    "state",
]
# Of a file.
_RECORDED = (
    *("name", "kind", "state", "data", "recipe", "differs", "epochs", "max_epochs", "best_epoch"),
    *("valid_ndcg@10", "depth", "test_ndcg@10", "test_recall@10", "seconds", "date", "folder"),
    "damage",
)
_BEST_FIRST = ("epochs", "valid", "ndcg", "recall", "date")
_TITLES = {  # of two lines
    "valid": ("valid", "NDCG@10"),
    "ndcg": ("test", "NDCG@10"),
    "recall": ("test", "Recall@10"),
}
_TEXTS = ("name", "kind", "data", "recipe", "date", "state")
_GAP = "  "
_MOST_ROOM = 48  # letters for a recipe and what differs from it
_FORMS = (".csv", ".json")
Row = dict[str, Any]


@dataclass(frozen=True)
class RunsOptions:
    """Options of the command.

    Attributes:
        sort: Column to sort by, the best, most or latest first; names, and seconds, in ascending order.
        output: File to write the table to, in .csv or .json, with all options that differ from the
            recipe's.
    """

    sort: Column = "name"
    output: str | None = None

    def __post_init__(self) -> None:
        settle_options(self, "--")


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "runs",
        "List the runs in a folder, and in folders within it, with what they came to: best validation "
        "NDCG@10, and test metrics at the depth that they were trained for or the nearest that was "
        "tested.",
    )
    parser.add_argument(
        "path", metavar="FOLDER", nargs="?", default="runs", help="Folder of runs. Default: runs."
    )
    add_options(parser, RunsOptions, {"output": "FILE"})
    return parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares runs``."""
    args = build_parser().parse_args(list(argv))
    options, folder = checked(args, RunsOptions), Path(args.path)
    output = None if options.output is None else Path(options.output)
    if output is not None:
        if output.suffix.lower() not in _FORMS:
            raise ConfigError(
                f"--output is {options.output!r}; it must end in {' or '.join(_FORMS)}"
            )
        require_output("--output", output)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; give the FOLDER that runs lie in")
    found = [summary_of(path) for path in find_runs(folder)]
    found.sort(key=_order(options.sort, folder))
    if output is not None:
        _write([_record(each, folder) for each in found], output)
    if not found:
        print(f"no runs in {folder}")
        return
    print(_table(found, folder))
    for each in found:
        if each.state == "damaged":
            print(f"damaged: {one_line(f'{each.folder.path}: {each.reason}')}")


def _values(run: RunSummary, folder: Path) -> Row:
    """Return the values of a run's row by column, None for what is not known."""
    config, best, tested = run.config, run.best, run.tested
    return {
        "name": shown_name(run.folder.path, folder),
        "kind": run.kind or None,
        "data": None if config is None else data_name(config),
        "recipe": _recipe(run) or None,
        "epochs": run.epochs,
        "valid": None if best is None else best[1],
        "ndcg": None if tested is None else tested[1]["ndcg@10"],
        "recall": None if tested is None else tested[1]["recall@10"],
        "depth": None if tested is None else tested[0],
        "seconds": run.seconds,
        "date": run.date or None,
        "state": run.state,
    }


def _recipe(run: RunSummary) -> str:
    """Return the recipe that a run is most like; of post-training the run that it started from."""
    if isinstance(run.config, PosttrainConfig):
        return f"of {last_name(Path(run.config.start.checkpoint))}"
    return "" if run.likeness is None else run.likeness.recipe


def _order(column: str, folder: Path) -> Callable[[RunSummary], Any]:
    """Return the key to sort runs by; what is not known comes last, and what is equal by name."""

    def key(run: RunSummary) -> tuple[Any, ...]:
        value = run.changed if column == "date" else _values(run, folder)[column]
        name = str(run.folder.path)
        if value is None:
            return 1, 0, name
        return 0, -value if column in _BEST_FIRST else value, name

    return key


def _record(run: RunSummary, folder: Path) -> Row:
    """Return what a file says of a run."""
    values, best = _values(run, folder), run.best
    config, differs = run.config, {} if run.likeness is None else run.likeness.differs
    return {
        "name": values["name"],
        "kind": values["kind"],
        "state": run.state,
        "data": None if config is None else config.data.path,
        "recipe": values["recipe"],
        "differs": differs,
        "epochs": run.epochs,
        "max_epochs": None if config is None else config.trainer.max_epochs,
        "best_epoch": None if best is None else best[0],
        "valid_ndcg@10": values["valid"],
        "depth": values["depth"],
        "test_ndcg@10": values["ndcg"],
        "test_recall@10": values["recall"],
        "seconds": run.seconds,
        "date": values["date"],
        "folder": str(run.folder.path),
        "damage": run.reason or None,
    }


def _write(records: Sequence[Row], path: Path) -> None:
    """Write records as CSV or JSON, whole or not at all."""
    if path.suffix.lower() == ".json":
        text = json.dumps(records, indent=2) + "\n"
    else:
        file = io.StringIO()
        writer = csv.DictWriter(file, _RECORDED, lineterminator="\n")
        writer.writeheader()
        for record in records:
            differs = "; ".join(_differences(record["differs"]))
            writer.writerow({**record, "differs": differs})
        text = file.getvalue()
    write_text(path, text.encode(errors="replace").decode())


def _differences(differs: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in differs.items()]


def _cells(run: RunSummary, folder: Path) -> dict[str, str]:
    """Return a run's row as it is printed, without what differs from the recipe."""
    values = _values(run, folder)
    text = {name: "" if value is None else str(value) for name, value in values.items()}
    for name in ("valid", "ndcg", "recall"):
        if values[name] is not None:
            text[name] = f"{values[name]:.4f}"
    if run.seconds is not None:
        text["seconds"] = f"{run.seconds:,.0f}"
    if run.epochs is not None and run.config is not None and run.state != "finished":
        text["epochs"] = f"{run.epochs}/{run.config.trainer.max_epochs}"
    return {name: one_line(value.encode(errors="replace").decode()) for name, value in text.items()}


def _table(runs: Sequence[RunSummary], folder: Path) -> str:
    """Return runs as a plain table, as wide as the terminal if there is one and that can be."""
    rows = [_cells(run, folder) for run in runs]
    titles = {name: _TITLES.get(name, ("", name)) for name in rows[0]}
    heads = [{name: title[line] for name, title in titles.items()} for line in (0, 1)]
    widths = {name: max(len(row[name]) for row in [*heads, *rows]) for name in titles}
    room = _MOST_ROOM
    if sys.stdout is not None and sys.stdout.isatty():
        others = sum(widths.values()) - widths["recipe"] + len(_GAP) * (len(widths) - 1)
        room = min(max(shutil.get_terminal_size().columns - others, widths["recipe"]), _MOST_ROOM)
    for row, run in zip(rows, runs, strict=True):
        if run.likeness is not None:
            row["recipe"] = _with_differences(row["recipe"], run.likeness.differs, room)
    widths["recipe"] = max(len(row["recipe"]) for row in [*heads, *rows])
    lines = [
        _GAP.join(
            row[name].ljust(width) if name in _TEXTS else row[name].rjust(width)
            for name, width in widths.items()
        ).rstrip()
        for row in [*heads, *rows]
    ]
    lines.insert(len(heads), "-" * max(map(len, lines)))
    return "\n".join(lines)


def _with_differences(recipe: str, differs: Mapping[str, Any], room: int) -> str:
    """Return a recipe and the options that differ from it, their number where there is no room."""
    # The options' own names tell enough where there is room for few.
    parts = [each.partition(".")[2] for each in _differences(differs)]
    text = recipe
    for number, part in enumerate(parts):
        left = len(parts) - number - 1
        longer = f"{text}, {part}"
        if len(longer) + len(f", +{left}") * (left > 0) > room:
            return one_line(f"{text}, +{left + 1}")
        text = longer
    return one_line(text)
