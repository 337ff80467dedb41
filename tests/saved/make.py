"""Makes the saved models and runs of this folder, in the current folder: README.md says when it ran.

    python -m tests.saved.make

It is kept to show how they came about, and need not run on any later revision. It replaces nothing:
where there are fixtures, it stops.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from lares import LaresModel
from lares.cli import main
from lares.data import load_dataset
from lares.data.batches import collate
from lares.data.split import Split
from lares.data.text_features import write_text_features
from lares.evaluation import evaluate
from lares.training.loggers import read_rows
from lares.training.trained import load_trained
from lares.training.trainer import Trainer
from tests.conftest import write_interactions
from tests.saved.scores import scores_of

DATA, MODELS, RUNS = Path("data"), Path("models"), Path("runs")
WALKS, FILMS, TEXTS = DATA / "walks.parquet", DATA / "films.csv", DATA / "texts.safetensors"
DEPTHS, K, SEED, EVALUATION_SEED = [1, 3], 5, 7, 2025
N_HISTORIES = 6
# No rank may hang on rounding: scores that are compared are further apart than this share of a
# history's spread of scores. Instruction sets differ by about 1e-6 of it.
LEAST_GAP = 3e-5

SMALL = [
    *("--model.d_model=16", "--model.d_ff=16", "--model.max_length=8"),
    *("--model.n_pre_layers=1", "--model.n_core_layers=1", "--model.mean_depth=2"),
    *("--model.state_omega=1.0", "--model.dropout=0.25", "--model.attn_dropout=0.25"),
    "--model.initializer_range=0.2",  # activations far from where they are all the same line
]
LOOP = [
    *("--optimizer.batch_size=64", "--optimizer.lr=0.01", "--trainer.test_depths=[1,3]"),
    *("--trainer.accelerator=cpu", "--trainer.num_threads=1", "--no_progress"),
]
NO_BOARD = "--trainer.tensorboard=false"
POSTTRAINING = [NO_BOARD, "--optimizer.lr=0.002", "--objective.k=5", "--objective.filter_top=6"]

# name: options of the run whose best model is saved.
MODEL_OPTIONS = {
    "attention_add_double": ["--trainer.precision=64-true"],
    "attention_concat": ["--model.adapter=concat", "--model.n_core_layers=2"],
    "attention_gate_cosine": [
        *("--model.adapter=gate", "--model.norm=pre", "--model.activation=silu"),
        *("--model.scores=cosine", "--model.tau=0.2", "--model.state_mode=normal_zero"),
    ],
    "bsarec": ["--model.core=bsarec", "--model.cutoff=4"],
    "fmlp": ["--model.core=filter"],
    "sasrec": ["--recipe=sasrec", "--model.n_core_layers=0", "--model.n_pre_layers=2"],
    "text": [f"--model.text_features={TEXTS}", "--model.text_experts=2"],
}

# name: (command, steps after which SIGTERM comes or None, options of the resuming command).
RUN_OPTIONS: dict[str, tuple[list[str], int | None, list[str]]] = {
    # Stopped inside the third epoch of four.
    "train_prefixes": (
        ["train", str(WALKS), *SMALL, *LOOP, "--trainer.max_epochs=4"],
        12,
        [],
    ),
    # Finished, goes on.
    "train_users": (
        [
            *("train", str(FILMS), "--recipe=shared", *SMALL, *LOOP, NO_BOARD),
            *("--trainer.max_epochs=3", "--model.adapter=gate", "--objective.align_warmup=8"),
            *("--objective.deep_supervision=0.5", "--sampling.aligned=16"),
        ],
        None,
        ["--trainer.max_epochs=5"],
    ),
    # Stopped as the second epoch of four ends.
    "train_text": (
        [
            *("train", str(WALKS), *SMALL, *LOOP, NO_BOARD, "--trainer.max_epochs=4"),
            *("--model.core=filter", f"--model.text_features={TEXTS}", "--model.text_experts=2"),
        ],
        10,
        [],
    ),
    "posttrain_prefixes": (
        [
            *("posttrain", str(RUNS / "train_prefixes"), *LOOP, *POSTTRAINING),
            *("--trainer.max_epochs=3", "--objective.updates=2"),
        ],
        6,
        [],
    ),
    "posttrain_users": (
        [
            *("posttrain", str(RUNS / "train_users"), "--samples=users", *LOOP, *POSTTRAINING),
            *("--trainer.max_epochs=3", "--objective.ndcg_reward=1.0"),
        ],
        3,
        [],
    ),
    "posttrain_users_cross_entropy": (
        [
            *("posttrain", str(RUNS / "train_users"), "--samples=users", *LOOP, *POSTTRAINING),
            *("--trainer.max_epochs=2", "--objective.kind=cross_entropy"),
        ],
        None,
        ["--trainer.max_epochs=4"],
    ),
}


def lares(*arguments: str) -> None:
    """The command line, in this process; a run's result says by which line it was started."""
    sys.argv = ["lares", *arguments]
    main(arguments)


@contextlib.contextmanager
def stopped_after(steps: int | None) -> Iterator[None]:
    """SIGTERM comes in that step of the run, which takes it, saves and stops."""
    if steps is None:
        yield
        return
    step: Callable[..., Any] = Trainer._step

    def stops(self: Trainer, indices: Any) -> Any:
        if self.progress.total_steps + 1 == steps:
            signal.raise_signal(signal.SIGTERM)
        return step(self, indices)

    Trainer._step = stops  # type: ignore[method-assign]
    try:
        yield
        raise RuntimeError(f"the run has no step {steps}")
    except SystemExit:
        pass
    finally:
        Trainer._step = step  # type: ignore[method-assign]


def make_data() -> None:
    """Whole-number ids in the order of the rows; names with times, in any order; texts of the first."""
    write_interactions(WALKS)
    drawn = write_interactions(DATA / "drawn.parquet", n_users=50, seed=1)
    rows = pq.read_table(drawn).to_pylist()
    drawn.unlink()
    names = [f"film-{chr(ord('a') + number)}" for number in range(24)] + ["film-é"]
    lines = [
        f"user-{row['user_id']},{names[row['item_id'] - 1]},{1_700_000_000 + 60 * number}"
        for number, row in enumerate(rows)
    ]
    generator = np.random.default_rng(2)
    shuffled = [lines[place] for place in generator.permutation(len(lines))]
    FILMS.write_text("\n".join(["user_id,item_id,timestamp", *shuffled]) + "\n", encoding="utf-8")
    items = [str(item) for item in load_dataset(WALKS).vocabulary.ids]
    features = torch.from_numpy(generator.standard_normal((len(items), 6), dtype=np.float32))
    write_text_features(TEXTS, features, items[::-1], {"model": "drawn"})


def make_model(name: str, options: list[str]) -> None:
    """A short run's best model, by ``save_pretrained``, and what it answers."""
    run = RUNS / "of_models" / name
    lares("train", str(WALKS), "--out", str(run), *SMALL, *LOOP, NO_BOARD, *options)
    LaresModel.from_pretrained(run / "best").save_pretrained(MODELS / name)
    write_expected(MODELS / f"{name}.expected.json", answers(MODELS / name))


def make_run(name: str) -> None:
    """A run as it was stopped, what it answers, and what it comes to when it goes on.

    That is what a run comes to that was never stopped; going on must give the same to the last digit.
    """
    command, stop, more = RUN_OPTIONS[name]
    with stopped_after(stop):
        lares(*command, "--out", str(RUNS / name))
    expected = answers(RUNS / name)
    whole, resumed = Path("whole") / name, Path("resumed") / name
    lares(*command, *more, "--out", str(whole))
    shutil.copytree(RUNS / name, resumed)
    lares(command[0], "--out", str(resumed), "--resume", "--no_progress", *more)
    for folder in (whole, resumed):
        found = json.loads((folder / "result.json").read_text())
        outcome = {
            "metrics": read_rows(folder / "metrics.csv"),
            "result": {
                key: found[key] for key in ("test", "start", "valid_best", "best_epoch", "epochs")
            },
        }
        if expected.setdefault("outcome", outcome) != outcome:
            raise RuntimeError(f"{name}: resumed {outcome}, uninterrupted {expected['outcome']}")
    expected["resume"] = more
    write_expected(RUNS / f"{name}.expected.json", expected)


def answers(folder: Path) -> dict[str, Any]:
    """What the model of a folder recommends, scores and evaluates to; raw ids where it knows them."""
    trained = load_trained(folder)
    data = trained.data.path if trained.data else str(WALKS)
    model, dataset = trained.model, trained.same_rows(load_dataset(data))
    depths = DEPTHS if model.config.is_recurrent else [0]
    check_ranks(model, dataset.test, depths)
    test = dataset.test
    places = zip(test.starts, test.ends, strict=True)
    rows = well_apart(model, [test.items[start : end + 1].tolist() for start, end in places])
    raw = trained.vocabulary.decode if trained.vocabulary else list
    return {
        "data": data,
        "seed": SEED,
        "k": K,
        "histories": [raw(row) for row in rows],
        "recommend": [
            {
                "depth": depth,
                "items": [raw(row) for row in model.recommend(rows, K, seed=SEED, num_steps=depth)],
            }
            for depth in asked_depths(model)
        ],
        "scores": [
            [float(f"{score:.7g}") for score in row]
            for row in scores_of(model, rows, SEED).tolist()
        ],
        "evaluation_seed": EVALUATION_SEED,
        "evaluate": {
            str(depth): metrics
            for depth, metrics in evaluate(model, test, depths=depths, seed=EVALUATION_SEED).items()
        },
    }


def asked_depths(model: LaresModel) -> list[int | None]:
    """The model's own depth, and another where it has one."""
    return [None, 4] if model.config.is_recurrent else [None]


def well_apart(model: LaresModel, rows: list[list[int]]) -> list[list[int]]:
    """Histories whose best items do not hang on rounding, at each depth asked for.

    One after the other: a history's draws are addressed by its number among those chosen.
    """
    chosen: list[list[int]] = []
    for row in rows:
        if len(chosen) == N_HISTORIES:
            return chosen
        least = 1.0
        for depth in asked_depths(model):
            scores = scores_of(model, [*chosen, row], SEED, depth)[-1].double()
            spread = float(scores[1:].std())
            scores[[0, *row]] = -torch.inf
            best = scores.topk(K + 1).values
            least = min(least, float((best[:-1] - best[1:]).min()) / spread)
        if len(row) > 2 and least > 0.01:
            chosen.append(row)
    raise RuntimeError("too few histories whose recommendations are beyond rounding")


def check_ranks(model: LaresModel, split: Split, depths: list[int]) -> None:
    """Raise ``RuntimeError`` where a rank of the evaluation hangs on rounding."""
    item_seq, lengths, targets = map(
        torch.from_numpy, collate(split, np.arange(len(split)), model.config.max_length)
    )
    for depth in depths:
        with torch.no_grad():
            scores = model.scores(item_seq, lengths, depth, seed=EVALUATION_SEED)[:, 1:].double()
        gaps = (scores - scores.gather(1, targets[:, None] - 1)).abs() / scores.std(1, keepdim=True)
        gaps.scatter_(1, targets[:, None] - 1, torch.inf)
        if float(gaps.min()) < LEAST_GAP:
            raise RuntimeError(f"two scores of depth {depth} are {float(gaps.min()):.1g} apart")


def write_expected(path: Path, expected: dict[str, Any]) -> None:
    """JSON with a line for every entry."""
    entries = [
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in expected.items()
    ]
    path.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8")


def make() -> None:
    """All of it."""
    for folder in (DATA, MODELS, RUNS):
        if folder.exists():
            raise SystemExit(f"{folder} is there: fixtures are never made again (README.md)")
    make_data()
    for name, options in MODEL_OPTIONS.items():
        make_model(name, ["--trainer.max_epochs=6", *options])
    shutil.rmtree(RUNS / "of_models")
    for name in RUN_OPTIONS:
        make_run(name)
    for folder in (Path("whole"), Path("resumed")):
        shutil.rmtree(folder)


if __name__ == "__main__":
    make()
