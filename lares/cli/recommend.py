"""``lares recommend RUN_OR_MODEL``: the best next items for histories of raw item ids."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lares.cli.options import (
    OptionParser,
    add_computing,
    choose_device,
    command_parser,
    require_at_least,
    require_computing,
    require_in,
)
from lares.cli.output import is_utf8
from lares.data.formats.csv_rows import rows_of
from lares.errors import ConfigError, DataError
from lares.model.config import MOST_STEPS
from lares.names import shown
from lares.plain import one_of
from lares.training.data_record import DataRecord
from lares.training.run_folder import find_model, find_run

if TYPE_CHECKING:
    from lares.data.vocabulary import Vocabulary
    from lares.model.model import LaresModel

_UNKNOWN = ("error", "skip")
_EMPTIED = ("nothing", "popular")
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


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "recommend",
        "Recommend items, in the ids of the data where the model knows them. What goes in and comes "
        'out is CSV, a history a line: ids with commas are quoted ("Duo 3, Live").',
        formerly={"--keep-seen": "--keep_seen"},
    )
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="Run folder, or a saved model's.")
    add("--history", metavar="ID,ID,...", help="One history, oldest item first.")
    add(
        "--histories",
        metavar="FILE",
        help="File with one history a line, in the same form; it may be compressed (.gz, .zst).",
    )
    add("--k", type=int, default=10, help="Number of items to recommend.")
    add("--keep_seen", action="store_true", help="Recommend also items of the history.")
    add(
        "--unknown",
        default="error",
        help="Treatment of items that the model does not know: error, or skip, which leaves them out "
        "and takes blank lines for empty histories.",
    )
    add(
        "--emptied",
        default="nothing",
        help="List for a history of which nothing is left: nothing (an empty line), or popular, the "
        "items that training met most often.",
    )
    add("--depth", type=int, help="Reasoning depth. Default: the training mean.")
    add_computing(parser)
    return parser


def read_histories(history: str | None, histories: str | None) -> list[History]:
    """Return every history asked for, on the command line or in a file.

    Raises:
        DataError: the file cannot be read, or a line is not CSV of ids.
    """
    if (history is None) == (histories is None):
        raise ConfigError("give --history ID,ID,... or --histories FILE, one of them")
    if history is not None:
        return list(_parsed([history], lambda line: "--history"))
    from lares.data.formats.text_lines import text_lines  # brings pyarrow

    path = Path(str(histories))
    lines = text_lines(path, _LONGEST_LINE)
    found = list(_parsed(lines, lambda line: f"{path}, line {line}"))
    if not found:
        raise DataError(f"{path} holds no history")
    return found


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
    found = build_parser().parse_args(list(argv))
    one_of("--unknown", found.unknown, _UNKNOWN)
    one_of("--emptied", found.emptied, _EMPTIED)
    wanted = read_histories(found.history, found.histories)
    _require_ids(wanted, found.unknown == "skip")
    if sys.stdout is None:
        raise ConfigError("standard output is closed; lists are written there")
    require_at_least("--k", found.k, 1)
    require_in("--depth", found.depth, 1, MOST_STEPS)
    require_computing(found)
    find_model(found.model)  # a wrong folder is told before torch is imported
    popular = _popular(found.model, found.k) if found.emptied == "popular" else []
    device = choose_device(found.device, found.num_threads)
    # Imported here: it brings torch, which help and the checks above can do without.
    from lares.training.trained import load_trained

    model, vocabulary, _ = load_trained(found.model)
    rows, unknown = _rows_of(wanted, _row_numbers(model) if vocabulary is None else vocabulary)
    if unknown:
        if found.unknown == "error":
            _refuse(unknown)
        print(f"note: left out {_listed(unknown)}", file=sys.stderr)
    served = [number for number, history in enumerate(rows) if history]
    try:
        best = model.to(device).recommend_rows(
            [rows[number] for number in served],
            found.k,
            remove_seen=not found.keep_seen,
            num_steps=found.depth,
            seed=found.seed,
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
    found = vocabulary.find(item for history in wanted for item in history.ids).tolist()
    rows: list[list[int]] = []
    unknown, end = [], 0
    for history in wanted:
        start, end = end, end + len(history.ids)
        rows.append([])
        for item, row in zip(history.ids, found[start:end], strict=True):
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
