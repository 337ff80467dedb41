"""``lares data``: fetch public data sets, describe a file, make text features of items."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from lares.cli.options import (
    OptionParser,
    command_parser,
    require_output,
    require_picture,
    require_place,
)
from lares.data.fetch.sets import SETS, fetched, located
from lares.data.file_names import require_there
from lares.errors import ConfigError
from lares.names import nearest
from lares.plain import whole
from lares.training.config import DataOptions


def get_parser() -> OptionParser:
    """Options of ``lares data get``."""
    parser = command_parser(
        "data get",
        "Fetch a data set, whole and checked. Where there is no file or folder of its name, the name "
        "stands for it wherever data are read, as in 'lares train ml-100k'.",
    )
    add = parser.add_argument
    plain = [name for name, each in SETS.items() if not each.has_categories]
    add("name", metavar="NAME", help=f"Data set: {', '.join(plain)}, or amazon23 with a CATEGORY.")
    add("category", nargs="?", metavar="CATEGORY", help="Category, such as Video_Games.")
    add(
        "--out", metavar="FOLDER", help="Folder for the data set. Default: the cache, $LARES_CACHE."
    )
    return parser


def info_parser() -> OptionParser:
    """Options of ``lares data info``."""
    parser = command_parser("data info", "Read a file as train would; say what is in it.")
    parser.add_argument(
        "path",
        metavar="DATA",
        help="File or folder of interactions, or a name of 'lares data get'.",
    )
    parser.add_class_arguments(DataOptions, skip={"path"})
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="Picture of lengths, popularity and repeats, in .png, .svg or .pdf. Default: none.",
    )
    parser.judges[""] = DataOptions
    return parser


def embed_parser() -> OptionParser:
    """Options of ``lares data embed``."""
    parser = command_parser(
        "data embed",
        "Make text features of items, for --model.text_features, with a sentence-transformers model.",
        formerly={"--out": "--output"},
    )
    add = parser.add_argument
    add(
        "table", metavar="ITEMS", help="Table with a row for each item: Parquet, CSV or JSON lines."
    )
    add("--model", required=True, help="Name of a sentence-transformers model, or its folder.")
    add(
        "--output",
        metavar="FILE",
        help="File for the features. Default: ITEMS, ending in .safetensors.",
    )
    add("--item_column", default="item_id", help="Column of the raw ids, as in the interactions.")
    add("--text_columns", default="title", help="Columns of text, such as title,description.")
    add("--batch_size", type=int, default=64, help="Texts to encode at a time.")
    add("--device", help="Device of the model. Default: the model's own choice.")
    return parser


PARSERS = {"get": get_parser, "info": info_parser, "embed": embed_parser}


def embed(argv: Sequence[str]) -> None:
    """``lares data embed``."""
    args = embed_parser().parse_args(list(argv))
    whole("--batch_size", args.batch_size, 1)
    path = Path(args.table)
    output = Path(args.output) if args.output else path.with_suffix(".safetensors")
    require_output("--output", output)
    columns = args.text_columns.split(",")
    twice = [name for name in (args.item_column, *columns) if columns.count(name) > 1]
    if twice or args.item_column in columns:
        raise ConfigError(
            f"--text_columns is {args.text_columns!r} and --item_column {args.item_column!r}; they "
            "must be different columns"
        )
    require_there(path)
    # Imported here: it brings torch.
    from lares.data.embed import embed_items, load_encoder, read_item_texts

    texts = read_item_texts(path, args.item_column, columns)
    encoder = load_encoder(args.model, args.device)
    n, width = embed_items(texts, encoder, output, model=args.model, batch_size=args.batch_size)
    print(f"{output}: {n} of {len(texts.items)} items have text, features {width} wide")


def get(argv: Sequence[str]) -> None:
    """``lares data get``."""
    args = get_parser().parse_args(list(argv))
    folder = Path(args.out) if args.out else None
    if folder is not None:
        require_place("--out", folder)
    print(fetched(args.name, args.category, folder))


def info(argv: Sequence[str]) -> None:
    """``lares data info``."""
    # Messages about data name options as train has them.
    plain = [re.sub("^--data[.]", "--", argument) for argument in argv]
    args = info_parser().parse_args(plain).as_dict()
    plot = args.pop("plot")
    options = DataOptions(**args)
    picture = None if plot is None else require_picture("--plot", plot)
    located(options.path)
    # Imported here, as help and the checks above can do without.
    from lares.data.readers import load_dataset
    from lares.data.statistics import statistics_of

    dataset = load_dataset(**dataclasses.asdict(options))
    for note in dataset.notes:
        print(f"note: {note}")
    statistics = statistics_of(dataset)
    rows = {
        "name": dataset.name,
        "users": f"{dataset.n_users:,}",
        "items": f"{len(dataset.vocabulary):,}",
        "interactions": f"{dataset.n_interactions:,}",
        "density": f"{dataset.n_interactions / dataset.n_users / len(dataset.vocabulary):.4%}",
        **statistics.rows(),
        "training samples": f"{len(dataset.train):,}",
        "validation samples": f"{len(dataset.valid):,}",
        "test samples": f"{len(dataset.test):,}",
        **dataset.source,
    }
    for name, value in rows.items():
        print(f"{name:<19}{value}")
    if picture is not None:
        from lares.data.plots import plot_statistics

        plot_statistics(statistics, picture, dataset.name)
        print(f"{'picture':<19}{picture}")


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares data``."""
    actions = {"get": get, "info": info, "embed": embed}
    if not argv or argv[0] in ("-h", "--help"):
        print(
            "usage: lares data get NAME [CATEGORY] [--out FOLDER]\n"
            "       lares data info DATA [--plot FILE]\n"
            "       lares data embed ITEMS --model NAME [--output FILE]"
        )
        return
    if argv[0] not in actions:
        raise ConfigError(f"unknown action {argv[0]!r}; {nearest(argv[0], actions)}")
    actions[argv[0]](argv[1:])
