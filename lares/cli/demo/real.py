"""The demo on real data: LARES by reasoning depth beside SASRec and popularity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lares.cli.options import metrics_table
from lares.data.readers import load_dataset
from lares.evaluation.popularity import evaluate_popularity
from lares.names import shell_word
from lares.training.config import TrainConfig
from lares.training.loggers import CsvLog
from lares.training.plots import plot_run
from lares.training.run_folder import RunFolder
from lares.training.spt import train
from lares.training.spt_phases import SptPhaseOf

_METRICS = ["recall@10", "ndcg@10", "recall@20", "ndcg@20"]


def show(configs: Mapping[str, TrainConfig], folder: Path) -> None:
    """Train both models, or go on with them, and print and draw how they and popularity rank.

    Args:
        configs: of SASRec and of LARES, by these names.
        folder: of both runs and of the picture.
    """
    dataset = load_dataset(configs["LARES"].data.path)
    popularity = evaluate_popularity(dataset, dataset.test)
    runs = {name: RunFolder(folder / name.lower()) for name in configs}
    results = {}
    for name, config in configs.items():
        print(f"\n{name}" + " (the same model without recurrence)" * (name == "SASRec"), flush=True)
        resume = runs[name].config.is_file()
        results[name] = train(config, runs[name].path, resume=resume, dataset=dataset)
    without = results["SASRec"].test[0]
    rows = {"popularity": popularity, "SASRec (depth 0)": without}
    rows |= {f"LARES depth {d}": metrics for d, metrics in results["LARES"].test.items()}
    curves = folder / "curves.png"
    plot_run(
        CsvLog(runs["LARES"].metrics, results["LARES"].epochs).rows,
        results["LARES"].test,
        curves,
        f"LARES on {dataset.name}",
        SptPhaseOf.curves,
        baselines={"SASRec": without["ndcg@10"], "popularity": popularity["ndcg@10"]},
    )
    seconds = {name: result.seconds for name, result in results.items()}
    test = dataset.test
    asked = dataset.vocabulary.decode(test.items[test.starts[0] : test.ends[0]][-3:].tolist())
    history = shell_word(",".join(map(str, asked)))
    print("\nTest, ranking the whole catalogue:")
    print(metrics_table("model", rows, _METRICS))
    print(
        f"\ntrained in {seconds['SASRec']:.0f} s (SASRec) and {seconds['LARES']:.0f} s (LARES)\n"
        f"curves in {curves}, model in {runs['LARES'].best}\n"
        f"next: lares recommend {shell_word(str(runs['LARES'].path))} --history {history}"
    )
