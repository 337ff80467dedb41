"""``lares evaluate RUN_OR_MODEL DATA``: metrics of a trained model by reasoning depth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lares.cli.options import (
    OptionParser,
    add_device,
    choose_device,
    command_parser,
    metrics_table,
    require_at_least,
    require_device,
    whole_numbers,
)
from lares.errors import ConfigError
from lares.files import atomic_write
from lares.training.config import DataOptions
from lares.training.run_folder import find_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_SPLITS = ("valid", "test")


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "evaluate", "Full-ranking Recall and NDCG; all depths come from one pass."
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, or a saved model's")
    parser.add_argument("path", metavar="DATA", help="file or folder of interactions")
    parser.add_argument("--depths", type=str, help="default 1,2,4,8,12,16; 0 without recurrence")
    parser.add_argument("--split", default="test", help="valid or test")
    parser.add_argument("--ks", type=str, default="5,10,20,50", help="cut-offs")
    parser.add_argument("--batch_size", type=int, default=512, help="sequences a pass")
    parser.add_argument(
        "--remove_history", action="store_true", help="leave a user's history out of the ranking"
    )
    parser.add_argument(
        "--by_popularity",
        action="store_true",
        help="also by tenths of the samples, from those with the rarest targets to the most popular",
    )
    parser.add_argument("--seed", type=int, default=2025, help="of drawn initial states")
    parser.add_argument("--output", metavar="FILE.json", help="write the metrics here, too")
    add_device(parser)
    # No defaults: options not given are those of the run.
    for option in dataclasses.fields(DataOptions):
        if option.name != "path":
            kind = int if option.name == "core" else str
            parser.add_argument(
                f"--data.{option.name}", type=kind, help="as in train; default: the run's"
            )
    return parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares evaluate``."""
    found = build_parser().parse_args(list(argv))
    if found.split not in _SPLITS:
        raise ConfigError(f"--split is {found.split!r}; it must be one of {', '.join(_SPLITS)}")
    ks = whole_numbers("--ks", found.ks)
    depths = None if found.depths is None else whole_numbers("--depths", found.depths)
    require_at_least("--batch_size", found.batch_size, 1)
    require_at_least("--ks", min(ks), 1)
    require_at_least("--depths", min(depths or [0]), 0)
    given = {name: value for name, value in found.data.as_dict().items() if value is not None}
    DataOptions(**given)  # checks them
    require_at_least("--num_threads", found.num_threads, 1)
    require_device(found.device)
    find_model(found.model)  # a wrong folder is told before torch is imported
    device = choose_device(found.device, found.num_threads)
    # Imported here: they bring torch, which help and the checks above can do without.
    from lares.data.readers import load_dataset
    from lares.evaluation.evaluate import depth_ranks
    from lares.evaluation.popularity import popularity_tenths
    from lares.evaluation.ranking import metrics_from_ranks
    from lares.training.trained import load_trained

    trained = load_trained(found.model)
    options = dataclasses.replace(trained.data or DataOptions(), **given, path=found.path)
    dataset = trained.same_rows(load_dataset(**dataclasses.asdict(options)))
    if depths is None:
        depths = [1, 2, 4, 8, 12, 16] if trained.model.config.is_recurrent else [0]
    split = getattr(dataset, found.split)
    try:
        ranks = depth_ranks(
            trained.model.to(device),
            split,
            depths,
            batch_size=found.batch_size,
            remove_history=found.remove_history,
            seed=found.seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    results: dict[str, Any] = {
        str(depth): metrics_from_ranks(found_ranks, ks) for depth, found_ranks in ranks.items()
    }
    columns = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in ks]
    print(metrics_table("depth", results, columns))
    if found.by_popularity:
        by_tenth = _by_popularity(ranks, popularity_tenths(dataset, split), ks)
        for depth, rows in by_tenth.items():
            print(f"\ndepth {depth}, by popularity of the target")
            print(metrics_table("tenth", rows, columns))
        results["by_popularity"] = by_tenth
    if found.output:
        with atomic_write(Path(found.output)) as temporary:
            temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _by_popularity(
    ranks: dict[int, Tensor], tenths: NDArray[np.int64], ks: list[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of every depth by tenth, counted from 1, as far as there are samples."""
    import numpy as np
    import torch

    from lares.evaluation.ranking import metrics_from_ranks

    groups = torch.from_numpy(tenths)
    return {
        str(depth): {
            str(tenth + 1): metrics_from_ranks(found[(groups == tenth).to(found.device)], ks)
            for tenth in np.unique(tenths).tolist()
        }
        for depth, found in ranks.items()
    }
