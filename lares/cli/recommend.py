"""``lares recommend RUN_OR_MODEL``: the best next items for histories of raw item ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lares.cli.options import (
    OptionParser,
    add_device,
    choose_device,
    command_parser,
    require_at_least,
    require_device,
)
from lares.errors import ConfigError, DataError
from lares.training.run_folder import find_model


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "recommend", "Recommend items; ids are those of the data, where the model knows them."
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, or a saved model's")
    parser.add_argument("--history", metavar="ID,ID,...", help="one history, oldest item first")
    parser.add_argument("--histories", metavar="FILE", help="one history a line, in the same form")
    parser.add_argument("--k", type=int, default=10, help="items wanted")
    parser.add_argument("--keep-seen", action="store_true", help="also recommend items in history")
    parser.add_argument("--depth", type=int, help="reasoning depth; default: the training mean")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn initial state")
    add_device(parser)
    return parser


def read_histories(history: str | None, histories: str | None) -> list[tuple[str, list[str]]]:
    """(place, raw ids) of every history asked for."""
    if (history is None) == (histories is None):
        raise ConfigError("give --history ID,ID,... or --histories FILE, one of them")
    if history is not None:
        lines = [("--history", history)]
    else:
        path = Path(str(histories))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.splitlines(), 1)]
    found = []
    for place, line in lines:
        ids = [part.strip() for part in line.split(",")]
        if not all(ids):
            raise DataError(
                f"{place}: {line!r} is not a history; give item ids with commas between"
            )
        found.append((place, ids))
    if not found:
        raise DataError(f"{histories} holds no history")
    return found


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares recommend``."""
    found = build_parser().parse_args(list(argv))
    wanted = read_histories(found.history, found.histories)
    require_at_least("--k", found.k, 1)
    require_at_least("--depth", found.depth, 1)
    require_at_least("--num_threads", found.num_threads, 1)
    require_device(found.device)
    find_model(found.model)  # a wrong folder is told before torch is imported
    device = choose_device(found.device, found.num_threads)
    # Imported here: it brings torch, which help and the checks above can do without.
    from lares.training.trained import load_trained

    model, vocabulary, _ = load_trained(found.model)
    rows: list[list[int]] = []
    for place, ids in wanted:
        try:
            rows.append(
                [int(i) for i in ids] if vocabulary is None else vocabulary.encode(ids).tolist()
            )
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        except ValueError as error:
            raise DataError(f"{place}: ids are whole numbers here; {error}") from error
    try:
        best = model.to(device).recommend(
            rows,
            found.k,
            remove_seen=not found.keep_seen,
            num_steps=found.depth,
            seed=found.seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for items in best:
        raw = items if vocabulary is None else vocabulary.decode(items)
        print(",".join(map(str, raw)))
