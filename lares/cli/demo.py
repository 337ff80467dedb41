"""``lares demo``: LARES on MovieLens 100K in a few minutes, beside two baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lares.cli.options import OptionParser, command_parser, metrics_table, require_place
from lares.data.fetch.movielens import get_movielens_100k
from lares.names import shell_word
from lares.training.config import RECIPES_FOLDER, DataOptions, TrainConfig, merge_options
from lares.training.options_file import read_yaml
from lares.training.run_folder import RunFolder

_METRICS = ["recall@10", "ndcg@10", "recall@20", "ndcg@20"]


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "demo",
        "Fetch MovieLens 100K, train a small LARES and the same model without its recurrence, and "
        "compare both by reasoning depth with a popularity baseline. Run again, it goes on where it "
        "was stopped.",
    )
    add = parser.add_argument
    add("--out", default="runs/demo", metavar="FOLDER", help="Folder for both runs.")
    add("--max_epochs", type=int, help="Epochs of each model. Default: the recipe's.")
    add("--seed", type=int, default=2025, help="Seed of both runs.")
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


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares demo``."""
    args = build_parser().parse_args(list(argv))
    require_place("--out", Path(args.out))
    configs = {
        "depth 0": demo_config(args, without_recurrence=True),
        "LARES": demo_config(args, without_recurrence=False),
    }
    path = get_movielens_100k()
    from lares.data.readers import load_dataset
    from lares.evaluation.popularity import evaluate_popularity
    from lares.training.interrupts import Interrupted
    from lares.training.loggers import CsvLog
    from lares.training.plots import plot_run
    from lares.training.spt import train
    from lares.training.spt_phases import SptPhase

    data = DataOptions(path=str(path))
    configs = {name: dataclasses.replace(config, data=data) for name, config in configs.items()}
    dataset = load_dataset(path)
    print(
        f"MovieLens 100K: {dataset.n_users} users, {len(dataset.vocabulary)} films, "
        f"{len(dataset.train)} training samples ({path})"
    )
    popularity = evaluate_popularity(dataset, dataset.test)
    folder = Path(args.out)
    runs = {"depth 0": RunFolder(folder / "sasrec"), "LARES": RunFolder(folder / "lares")}
    results = {}
    for name, config in configs.items():
        print(f"\n{name}" + (" (the same model without recurrence, SASRec)" * (name == "depth 0")))
        run_folder = runs[name]
        again = " ".join(map(shell_word, ["lares", "demo", *argv]))
        try:
            results[name] = train(config, run_folder.path, resume=run_folder.config.is_file())
        except Interrupted as stopped:
            raise Interrupted(f"stopped; go on with: {again}", stopped.signal_number) from None
        except KeyboardInterrupt:
            raise Interrupted(f"stopped at once; go on with: {again}") from None
    without = results["depth 0"].test[0]
    rows = {"popularity": popularity, "depth 0 (SASRec)": without}
    rows |= {f"LARES depth {d}": metrics for d, metrics in results["LARES"].test.items()}
    curves = folder / "curves.png"
    plot_run(
        CsvLog(runs["LARES"].metrics, results["LARES"].epochs).rows,
        results["LARES"].test,
        curves,
        "LARES on MovieLens 100K",
        SptPhase.curves,
        baselines={"depth 0": without["ndcg@10"], "popularity": popularity["ndcg@10"]},
    )
    seconds = {name: result.seconds for name, result in results.items()}
    print("\nTest, ranking the whole catalogue:")
    print(metrics_table("model", rows, _METRICS))
    print(
        f"\ntrained in {seconds['depth 0']:.0f} s (depth 0) and {seconds['LARES']:.0f} s (LARES); "
        f"curves in {curves}, model in {runs['LARES'].best}\n"
        f"next: lares recommend {runs['LARES'].path} --history 50,181,174"
    )
