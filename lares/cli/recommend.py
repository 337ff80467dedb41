"""``lares recommend RUN_OR_MODEL``: the best next items for histories of raw item ids."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from lares.cli.options import (
    ComputingOptions,
    OptionParser,
    add_options,
    checked,
    choose_device,
    command_parser,
)
from lares.cli.output import is_utf8
from lares.data.formats.csv_rows import rows_of
from lares.errors import ConfigError, DataError
from lares.model.config import MOST_STEPS
from lares.names import shown
from lares.plain import option, settle_options, whole_in
from lares.training.data_record import DataRecord
from lares.training.run_folder import find_model, find_run

if TYPE_CHECKING:
    from lares.data.vocabulary import Vocabulary
    from lares.model.model import LaresModel

_PLACES_SHOWN = 5
_BLANKS = " \t\n\r\v\f"  # as in data; others are letters of an id
_LONGEST_LINE = 2**27  # letters, of a history, too: what never ends one is no file of histories


class History(NamedTuple):
    """A history as it was asked for: where it stands, and its raw ids as text, none in a blank line."""

    place: str
    ids: list[str]


class Unknown(NamedTuple):
    """An item that the model does not know, where it stands, and the error that says so."""

    place: str
    item: str
    error: DataError


@dataclass(frozen=True)
class RecommendOptions:
    """Options of the command beside those of computing.

    Attributes:
        history: One history, oldest item first.
        histories: File with one history a line, in the same form; it may be compressed (.gz, .zst).
        k: Number of items to recommend.
        keep_history: Recommend also items of the history.
        unknown: Treatment of items that the model does not know; skip leaves them out and takes blank
            lines for empty histories.
        emptied: List for a history of which nothing is left: an empty line, or the items that training
            met most often.
        depth: Reasoning depth. Default: the training mean.
    """

    history: str | None = None
    histories: str | None = None
    k: int = option(10, whole_in(1))
    keep_history: bool = False
    unknown: Literal["error", "skip"] = "error"
    emptied: Literal["nothing", "popular"] = "nothing"
    depth: int | None = option(None, whole_in(1, MOST_STEPS))

    def __post_init__(self) -> None:
        settle_options(self, "--")
        if (self.history is None) == (self.histories is None):
            raise ConfigError("give --history ID,ID,... or --histories FILE, one of them")


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "recommend",
        "Recommend items, in the ids of the data where the model knows them. What goes in and comes "
        'out is CSV, a history a line: ids with commas are quoted ("Duo 3, Live").',
        formerly=dict.fromkeys(("--keep-seen", "--keep_seen"), "--keep_history"),
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="Run folder, or a saved model's.")
    metavars = {"history": "ID,ID,...", "histories": "FILE"}
    add_options(parser, RecommendOptions, metavars)
    add_options(parser, ComputingOptions)
    return parser


def read_histories(history: str | None, histories: str | None) -> list[History]:
    """Return every history asked for, on the command line or in a file.

    Raises:
        DataError: the file cannot be read, or a line is not CSV of ids.
    """
    if history is not None:
        return list(_parsed([history], lambda line: "--history"))
    from lares.data.formats.text_lines import text_lines  # brings pyarrow

    path = Path(str(histories))
    lines = text_lines(path, _LONGEST_LINE)
    parsed = list(_parsed(lines, lambda line: f"{path}, line {line}"))
    if not parsed:
        raise DataError(f"{path} holds no history")
    return parsed


def _parsed(lines: Iterable[str], place: Callable[[int], str]) -> Iterator[History]:
    """Yield the histories in lines of CSV, where a quoted id may hold a line break.

    Args:
        lines: with their line breaks.
        place: says where a line stands, by its number from 1.
    """
    where, letters = "", 0  # of the history that is being read

    def bounded() -> Iterator[str]:
        nonlocal letters
        for line in lines:
            letters += len(line)
            if letters > _LONGEST_LINE:
                raise DataError(
                    f"{where}: the history has more than {_LONGEST_LINE:,} letters; is there a "
                    "quotation mark that none answers?"
                )
            yield line

    reader = csv.reader(bounded(), skipinitialspace=True, strict=True)
    rows = rows_of(reader)
    while True:
        where, letters = place(reader.line_num + 1), 0
        try:
            ids = next(rows, None)
        except csv.Error as error:
            raise DataError(
                f"{where}: {error}; an id that holds a comma or a quotation mark is quoted, and its "
                'quotation marks doubled: "Duo 3, Live"'
            ) from None
        if ids is None:
            return
        named = [part for part in ids if part.strip(_BLANKS)]
        if named != ids and len(ids) > 1:
            raise DataError(
                f"{where}: {shown(','.join(ids))} is not a history; give item ids with commas between"
            )
        yield History(where, named)


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares recommend``."""
    args = build_parser().parse_args(list(argv))
    options, computing = checked(args, RecommendOptions), checked(args, ComputingOptions)
    wanted = read_histories(options.history, options.histories)
    _require_ids(wanted, options.unknown == "skip")
    if sys.stdout is None:
        raise ConfigError("standard output is closed; lists are written there")
    find_model(args.model)  # a wrong folder is named before torch is imported
    popular = _popular(args.model, options.k) if options.emptied == "popular" else []
    device = choose_device(computing.device, computing.num_threads)
    # Imported here: it brings torch, which help and the checks above can do without.
    from lares.training.trained import load_trained

    model, vocabulary, _ = load_trained(args.model)
    rows, unknown = _rows_of(wanted, _row_numbers(model) if vocabulary is None else vocabulary)
    if unknown:
        if options.unknown == "error":
            _refuse(unknown)
        print(f"note: left out {_listed(unknown)}", file=sys.stderr)
    served = [number for number, history in enumerate(rows) if history]
    try:
        best = model.to(device).recommend_rows(
            [rows[number] for number in served],
            options.k,
            remove_history=not options.keep_history,
            num_steps=options.depth,
            seed=computing.seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    lists: list[list[Any]] = [popular] * len(rows)
    for number, items in zip(served, best, strict=True):
        lists[number] = items if vocabulary is None else vocabulary.decode(items)
    with is_utf8():
        _write(lists)


def _require_ids(wanted: Sequence[History], skip: bool) -> None:
    """See that histories have ids; if ``skip``, those that have none may go without, and are told.

    Raises:
        DataError: one has none.
    """
    empty = [history.place for history in wanted if not history.ids]
    if not empty:
        return
    if not skip:
        raise DataError(
            f"{empty[0]}: '' is not a history; give item ids with commas between, or --unknown skip, "
            "with which it is an empty one"
        )
    places = ", ".join(empty[:_PLACES_SHOWN]) + ", ..." * (len(empty) > _PLACES_SHOWN)
    histories = "empty history" if len(empty) == 1 else "empty histories"
    print(f"note: {len(empty):,} {histories}: {places}", file=sys.stderr)


def _write(lists: Iterable[Sequence[Any]]) -> None:
    """Print lists as histories are read."""
    plain = csv.writer(sys.stdout, lineterminator="\n")
    quoted = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for ids in lists:
        # Blanks beside a comma are not read as part of an id unless it is quoted.
        (quoted if any(str(each) != str(each).strip() for each in ids) else plain).writerow(ids)


def _popular(model: str, k: int) -> list[Any]:
    """Return the ``k`` most popular items of the data that the model's run was trained on."""
    run = find_run(model)
    record = None if run is None else DataRecord.load(run.record)
    if record is None or not record.popular:
        raise ConfigError(
            f"--emptied popular: {model} does not say what is popular; give the folder of a run"
        )
    if k > len(record.popular):
        raise ConfigError(
            f"--k is {k}; {model} knows the {len(record.popular)} most popular items alone"
        )
    return record.popular[:k]


def _row_numbers(model: LaresModel) -> Vocabulary:
    """Return the ids of a model without a vocabulary: its rows' numbers."""
    import numpy as np

    from lares.data.vocabulary import Vocabulary

    return Vocabulary(np.arange(1, model.config.n_items))


def _rows_of(
    wanted: Sequence[History], vocabulary: Vocabulary
) -> tuple[list[list[int]], list[Unknown]]:
    """Return the rows of histories' items, without those that are unknown, and these."""
    all_rows = vocabulary.find(item for history in wanted for item in history.ids).tolist()
    rows: list[list[int]] = []
    unknown, end = [], 0
    for history in wanted:
        start, end = end, end + len(history.ids)
        rows.append([])
        for item, row in zip(history.ids, all_rows[start:end], strict=True):
            # Blanks before a comma belong to no id, unless there is an id that ends in them.
            known = row or int(vocabulary.find([item.strip(_BLANKS)])[0])
            if known:
                rows[-1].append(known)
            else:
                unknown.append(_unknown(vocabulary, history.place, item.strip(_BLANKS)))
    return rows, unknown


def _unknown(vocabulary: Vocabulary, place: str, item: str) -> Unknown:
    from lares.data.ids import whole_number

    number = whole_number(item) if vocabulary.is_numeric else None
    return Unknown(place, item, vocabulary.unknown(item if number is None else number))


def _refuse(unknown: Sequence[Unknown]) -> NoReturn:
    first, more = unknown[0], len(unknown) > 1
    raise DataError(
        f"{first.place}: {first.error}"
        + f"; {_listed(unknown)}" * more
        + "; --unknown skip leaves out what is unknown"
    )


def _listed(unknown: Sequence[Unknown]) -> str:
    """Return how many items are unknown, and the first of them with their places, in words."""
    named = ", ".join(f"{shown(one.item)} ({one.place})" for one in unknown[:_PLACES_SHOWN])
    kind = "unknown item" if len(unknown) == 1 else "unknown items"
    return f"{len(unknown):,} {kind}: {named}" + ", ..." * (len(unknown) > _PLACES_SHOWN)
