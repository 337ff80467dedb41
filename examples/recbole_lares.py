"""RecBole's SASRec, the same on the op, and LARES, each through ``run_recbole``.

    python examples/recbole_lares.py interactions.parquet --epochs 5

It needs a Python with RecBole 1.2.1 (docs/guide/swap.md).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from recbole.quick_start import run_recbole

from lares.data.readers import load_dataset
from lares.integrations.recbole import LARES_DEFAULTS  # importing it makes its models known

MODELS = ("SASRec", "FusedSASRec", "LARES")


def write_atomic_file(source: Path, folder: Path) -> None:
    """``folder/data/data.inter`` with the interactions of ``source``."""
    test = load_dataset(source).test
    (folder / "data").mkdir()
    with (folder / "data" / "data.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, (start, end) in enumerate(zip(test.starts, test.ends, strict=True)):
            for place in range(start, end + 1):
                file.write(f"u{user}\ti{test.items[place]}\t{place - start}\n")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Train each model and print its time and NDCG@10."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a file that `lares data info` reads")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--log", action="store_true", help="RecBole's own, with every epoch's loss")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    sys.argv = sys.argv[:1]  # which RecBole would read
    # RecBole reads its own checkpoints back as pickles, which torch refuses unless told.
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_file(options.data, Path(folder))
        for model in options.models:
            config = {
                **LARES_DEFAULTS,
                "data_path": folder,
                "checkpoint_dir": f"{folder}/saved",
                "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
                "metrics": ["NDCG"],
                "topk": [10],
                "valid_metric": "NDCG@10",
                "epochs": options.epochs,
                "hidden_size": options.width,
                "show_progress": False,
                "seed": options.seed,
                "state": "INFO" if options.log else "ERROR",
                "use_gpu": False,
            }
            started = time.perf_counter()
            result = run_recbole(model=model, dataset="data", config_dict=config)
            seconds = time.perf_counter() - started
            found[model] = result["test_result"]["ndcg@10"]
            print(f"{model}: NDCG@10 {found[model]:.4f}, {seconds:.1f} s with its evaluations")
    return found


if __name__ == "__main__":
    main()
