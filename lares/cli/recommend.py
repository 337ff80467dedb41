"""``lares recommend RUN_OR_MODEL``: the best next items for histories of raw ids, and for users."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lares.cli.histories import Found, History, read_histories, rows_in
from lares.cli.options import (
    ComputingOptions,
    OptionParser,
    add_options,
    checked,
    choose_device,
    command_parser,
    require_output,
)
from lares.cli.output import is_utf8
from lares.cli.recommend_options import RecommendOptions
from lares.cli.run_data import add_data, add_data_options, data_options, own_data
from lares.data.fetch.sets import located
from lares.data.file_names import require_there
from lares.errors import ConfigError
from lares.training.data_record import DataRecord
from lares.training.run_folder import find_model, find_run

if TYPE_CHECKING:
    from lares.data.vocabulary import Vocabulary
    from lares.model.model import LaresModel


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "recommend",
        "Recommend items, in the ids of the data where the model knows them. Without --output a "
        "history a line goes in and a list a line comes out, as CSV: ids with commas are quoted "
        '("Duo 3, Live").',
        formerly=dict.fromkeys(("--keep-seen", "--keep_seen"), "--keep_history"),
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="Run folder, or a saved model's.")
    add_data(parser, "File or folder of interactions, for --users. Default: the run's.")
    metavars = dict.fromkeys(("histories", "output", "exclude", "only", "items"), "FILE")
    metavars |= {"history": "ID,ID,...", "users": "all|FILE", "item_columns": "ID,TITLE"}
    add_options(parser, RecommendOptions, metavars)
    add_options(parser, ComputingOptions)
    add_data_options(parser)
    return parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares recommend``."""
    args = build_parser().parse_args(list(argv))
    options, computing = checked(args, RecommendOptions), checked(args, ComputingOptions)
    given = data_options(args)
    if options.users is None and (given or args.path is not None):
        what = f"--data.{next(iter(given))}" if given else f"DATA ({args.path})"
        raise ConfigError(f"{what} is for --users, whose histories are read there; leave it out")
    if options.output is not None:
        _write_file(args, options, computing, given)
        return
    wanted = list(read_histories(options.history, options.histories))
    _require_ids(wanted, options.unknown == "skip")
    if sys.stdout is None:
        raise ConfigError("standard output is closed; lists are written there")
    find_model(args.model)  # a wrong folder is named before torch is imported
    popular = _popular(args.model, options)
    device = choose_device(computing.device, computing.num_threads)
    # Imported here: it brings torch, which help and the checks above can do without.
    from lares.training.trained import load_trained

    model, vocabulary, _ = load_trained(args.model)
    found = Found()
    rows = rows_in(wanted, _row_numbers(model) if vocabulary is None else vocabulary, found)
    if options.unknown == "error":
        found.require_none()
    found.tell_unknown()
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
    lists: list[list[Any]] = [popular[: options.k]] * len(rows)
    for number, items in zip(served, best, strict=True):
        lists[number] = items if vocabulary is None else vocabulary.decode(items)
    with is_utf8():
        _print(lists)


def _write_file(
    args: Any, options: RecommendOptions, computing: ComputingOptions, given: dict[str, Any]
) -> None:
    """Write lists into a file; what can be told before torch comes is told before."""
    require_output("--output", Path(str(options.output)))
    files = (options.histories, options.exclude, options.only, options.items)
    for name in (*files, None if options.users == "all" else options.users):
        if name is not None:
            require_there(Path(name))
    _, of_run = find_model(args.model)
    path = args.path
    if options.users is not None and path is None and find_run(args.model) is not None:
        path = own_data(args.model, of_run)
    if path is not None:
        located(path)
    popular = _popular(args.model, options)
    device = choose_device(computing.device, computing.num_threads)
    # Imported here, as above.
    from lares.cli.bulk import BulkData, write_file
    from lares.model.model import LaresModel

    model = LaresModel.from_pretrained(args.model).to(device)
    write_file(model, options, BulkData(Path(args.model), path, given, popular), computing.seed)


def _require_ids(wanted: Sequence[History], skip: bool) -> None:
    """See that histories have ids; if ``skip``, those that have none may go without, and are told.

    Raises:
        DataError: one has none.
    """
    found = Found()
    for history in wanted:
        if not history.ids:
            found.add_empty(history.place)
    if not skip:
        found.require_ids()
    found.tell_empty()


def _print(lists: Iterable[Sequence[Any]]) -> None:
    """Print lists as histories are read."""
    plain = csv.writer(sys.stdout, lineterminator="\n")
    quoted = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for ids in lists:
        # Blanks beside a comma are not read as part of an id unless it is quoted.
        (quoted if any(str(each) != str(each).strip() for each in ids) else plain).writerow(ids)


def _popular(model: str, options: RecommendOptions) -> list[Any]:
    """Return the most popular items of the data that the model's run was trained on, at least ``k``;
    none where nobody gets them.

    Raises:
        ConfigError: the model does not say what is popular, or knows too few.
    """
    if options.emptied != "popular":
        return []
    run = find_run(model)
    record = None if run is None else DataRecord.load(run.record)
    if record is None or not record.popular:
        raise ConfigError(
            f"--emptied popular: {model} does not say what is popular; give the folder of a run"
        )
    if options.k > len(record.popular):
        raise ConfigError(
            f"--k is {options.k}; {model} knows the {len(record.popular)} most popular items alone"
        )
    return record.popular


def _row_numbers(model: LaresModel) -> Vocabulary:
    """Return the ids of a model without a vocabulary: its rows' numbers."""
    import numpy as np

    from lares.data.vocabulary import Vocabulary

    return Vocabulary(np.arange(1, model.config.n_items))
