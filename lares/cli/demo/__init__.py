"""``lares demo``: the kernels beside plain PyTorch on drawn data, or LARES beside baselines on real."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lares.cli.options import OptionParser, command_parser, require_place
from lares.data.fetch.drawn import get_drawn
from lares.data.fetch.sets import located
from lares.data.file_names import last_name
from lares.errors import ConfigError
from lares.names import shell_word
from lares.training.config import (
    RECIPES_FOLDER,
    DataOptions,
    TrainConfig,
    merge_options,
)
from lares.training.interrupts import Interrupted
from lares.training.options_file import read_yaml

DRAWN = "drawn"


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "demo",
        "Time training and requests of SASRec and LARES on the CPU kernels beside plain PyTorch on the "
        "same weights, then train a small LARES and recommend, on data that are drawn: minutes, and no "
        "network. With --data, train SASRec and LARES on real data and compare them with popularity. "
        "Run again, it goes on where it was stopped.",
    )
    add = parser.add_argument
    add(
        "--data",
        default=DRAWN,
        metavar="DATA",
        help="Name of 'lares data get', such as ml-100k, or file or folder of interactions.",
    )
    add("--out", metavar="FOLDER", help="Folder to fill. Default: runs/demo, or runs/demo-DATA.")
    add("--max_epochs", type=int, help="Epochs of each model. Default: the recipe's.")
    add("--seed", type=int, default=2025, help="Seed of weights and runs.")
    add("--num_threads", type=int, help="Number of threads on the CPU. Default: torch's setting.")
    return parser


def demo_config(args: Any, without_recurrence: bool) -> TrainConfig:
    """Return the recipe, still without data; without recurrence it is SASRec of the same size."""
    options = merge_options(
        read_yaml(RECIPES_FOLDER / "demo.yaml"),
        {"trainer": {"seed": args.seed, "num_threads": args.num_threads}},
    )
    if args.max_epochs is not None:
        options = merge_options(options, {"trainer": {"max_epochs": args.max_epochs}})
    if without_recurrence:
        options = merge_options(options, read_yaml(RECIPES_FOLDER / "sasrec.yaml"))
    return TrainConfig.from_dict(options)


def default_folder(data: str) -> Path:
    """``runs/demo`` of the drawn data, ``runs/demo-DATA`` of others."""
    name = last_name(Path(data)).lstrip(".").split(".")[0] or "data"
    return Path("runs") / ("demo" if data == DRAWN else f"demo-{name}")


@contextlib.contextmanager
def saying_how_to_go_on(argv: Sequence[str]) -> Iterator[None]:
    """Name the demo's own command where it is stopped."""
    again = " ".join(map(shell_word, ["lares", "demo", *argv]))
    try:
        yield
    except Interrupted as stopped:
        raise Interrupted(f"stopped; go on with: {again}", stopped.signal_number) from None
    except KeyboardInterrupt:
        raise Interrupted(f"stopped at once; go on with: {again}") from None


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares demo``."""
    args = build_parser().parse_args(list(argv))
    if not args.data:
        raise ConfigError("--data is ''; give the name of a data set, a file or a folder")
    folder = Path(args.out) if args.out else default_folder(args.data)
    require_place("--out", folder)
    configs = {
        "SASRec": demo_config(args, without_recurrence=True),
        "LARES": demo_config(args, without_recurrence=False),
    }
    is_drawn = args.data == DRAWN  # whatever else is called so: no figure of it is anybody's
    path = get_drawn(folder) if is_drawn else located(args.data)
    data = DataOptions(path=str(path))
    configs = {name: dataclasses.replace(config, data=data) for name, config in configs.items()}
    # Imported here: they bring torch, which help and the checks above can do without.
    if is_drawn:
        from lares.cli.demo.drawn import show
    else:
        from lares.cli.demo.real import show

    with saying_how_to_go_on(argv):
        show(configs, folder)
