"""What a recipe comes to in the time that another takes: accuracy at equal processor time.

``python -m benchmarks.processes.recipes FILE... [--csv FILE] [--folder RUNS] [--seed 2025]`` trains on
each file by the first recipe of ``CANDIDATES`` to its own end, each other one for at most as many
seconds of its process, on one thread, and tests what was best on the validation samples, beside
popularity, with the history ranked and with it removed. The CSV file gets a row as each run ends.

``--trial OPTIONS``, as often as wanted, trains by these options of ``lares train`` instead, each for at
most ``--seconds``; ``--epochs FILE`` gets a row for every epoch of every run, with the run's own clock.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core.machine import machine_name, revision
from benchmarks.core.process import environment_here
from lares.data.dataset import Dataset
from lares.data.readers import load_dataset
from lares.evaluation import evaluate, evaluate_popularity
from lares.model.model import LaresModel
from lares.training.config import DEFAULT_RECIPE
from lares.training.loggers import read_rows

# By name; the first sets the time.
CANDIDATES = {
    DEFAULT_RECIPE: ["--recipe", DEFAULT_RECIPE],
    "sasrec": ["--recipe", "sasrec"],
    "sasrec, whole histories": ["--recipe", "sasrec", "--samples", "users"],
}
FIELDS = (
    *("data", "candidate", "command", "seed", "cpu_seconds", "ended", "best_epoch", "epochs"),
    *("valid_ndcg@10", "recall@10", "ndcg@10", "recall@10_removed", "ndcg@10_removed"),
    *("revision", "date", "machine"),
)
EPOCH_FIELDS = ("data", "options", "seed", "epoch", "seconds", "valid_ndcg@10")
_KS = (10,)


def cpu_seconds(process: int) -> float:
    """Return the seconds that a running process has had of processors."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(command: Sequence[str], most_seconds: float) -> tuple[float, bool]:
    """Run a training; return its seconds of processors, and whether it came to its own end.

    One that has had ``most_seconds`` is interrupted, and keeps what was best until then.
    """
    process = subprocess.Popen(command, env=environment_here())
    asked, spent = False, 0.0
    while process.poll() is None:
        spent = cpu_seconds(process.pid)
        if spent >= most_seconds and not asked:
            process.send_signal(signal.SIGINT)
            asked = True
        time.sleep(0.2)
    if process.returncode not in (0, 128 + signal.SIGINT):
        raise SystemExit(f"{shlex.join(command)}: status {process.returncode}")
    return spent, process.returncode == 0


def tested(run: Path, dataset: Dataset) -> dict[str, Any]:
    """Return what a run's best model comes to on the test samples, and when it was best."""
    model = LaresModel.from_pretrained(run / "best")
    depth = model.config.mean_depth if model.config.is_recurrent else 0
    rows = [row for row in read_rows(run / "metrics.csv") if row["valid_ndcg@10"]]
    best = max(rows, key=lambda row: float(row["valid_ndcg@10"]))
    found: dict[str, Any] = {
        "best_epoch": best["epoch"],
        "epochs": rows[-1]["epoch"],
        "valid_ndcg@10": best["valid_ndcg@10"],
    }
    for remove, ending in ((False, ""), (True, "_removed")):
        metrics = evaluate(model, dataset.test, depths=[depth], ks=_KS, remove_history=remove)
        found |= {name + ending: round(value, 5) for name, value in metrics[depth].items()}
    return found


def epochs(run: Path) -> list[dict[str, Any]]:
    """Return a row for every epoch of a run: seconds of training and validation so far, NDCG@10."""
    found, seconds = [], 0.0
    metrics, timing = read_rows(run / "metrics.csv"), read_rows(run / "timing.csv")
    for row, spent in zip(metrics, timing, strict=True):
        seconds += float(spent["train_seconds"]) + float(spent["valid_seconds"])
        names = {"epoch": row["epoch"], "seconds": round(seconds, 1)}
        found.append(names | {"valid_ndcg@10": row["valid_ndcg@10"]})
    return found


def popularity(dataset: Dataset) -> dict[str, Any]:
    """Return what popularity comes to on the test samples."""
    found: dict[str, Any] = {}
    for remove, ending in ((False, ""), (True, "_removed")):
        metrics = evaluate_popularity(dataset, dataset.test, _KS, remove_history=remove)
        found |= {name + ending: round(value, 5) for name, value in metrics.items()}
    return found


def append(path: Path, fields: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a CSV file, which begins with the names of its columns."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path, default=Path("recipes.csv"))
    parser.add_argument("--epochs", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--trial", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args(arguments)
    common = {
        "revision": revision(),
        "date": datetime.date.today().isoformat(),
        "machine": machine_name(),
        "seed": options.seed,
    }
    trials = {each: shlex.split(each) for each in options.trial}
    for path in options.files:
        dataset = load_dataset(path)
        common["data"] = path.stem
        if not trials:
            baseline = common | {"candidate": "popularity"} | popularity(dataset)
            append(options.csv, FIELDS, [baseline])
        most = options.seconds
        for number, (name, words) in enumerate((trials or CANDIDATES).items()):
            run = options.folder / f"{path.stem}-{options.seed}-{number}"
            own = ["train", str(path), *words, "--trainer.seed", str(options.seed)]
            own += ["--trainer.num_threads", "1"]
            command = [sys.executable, "-m", "lares", *own, "--out", str(run)]
            spent, ended = train([*command, "--trainer.tensorboard", "false"], most)
            if number == 0 and not trials:
                most = spent
            said = shlex.join(["lares", *own]).replace(str(path), path.name)
            row = {"candidate": name, "command": said, "ended": ended}
            row |= {"cpu_seconds": round(spent, 1)} | tested(run, dataset)
            append(options.csv, FIELDS, [common | row])
            if options.epochs is not None:
                told = {"data": path.stem, "options": name, "seed": options.seed}
                append(options.epochs, EPOCH_FIELDS, [told | each for each in epochs(run)])
            print(common["data"], row, flush=True)


if __name__ == "__main__":
    main()
