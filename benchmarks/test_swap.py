"""A training step of someone else's SASRec before and after its layers went onto the op.

``LARES_SWAP_DATA=ml-100k.parquet pytest benchmarks/test_swap.py`` on one thread; RecBole's part runs in
a Python that has RecBole (docs/guide/swap.md). Losses of both are held together first: with dropout off
step by step, with it on in the mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.core.race import Race
from benchmarks.core.settings import EFFORT, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.steps import swap
from lares.data.dataset import Dataset
from lares.data.readers import load_dataset

DATA = os.environ.get("LARES_SWAP_DATA", "")
pytestmark = pytest.mark.skipif(not DATA, reason="LARES_SWAP_DATA names no interactions")
ROUNDS, CURVE = (2, 4) if EFFORT is QUICK else (7, 60)
# SASRec.pytorch's own defaults; RecBole's, of which histories of up to 50 are one.
PYTORCH = {"batch": 128, "length": 200, "d": 50}
RECBOLE = {"batch": 512, "length": 50}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(Path(DATA))


def check_curves(make: Callable[[float, int], dict[str, swap.Training]], rate: float) -> None:
    """Losses of both: the same without dropout, within noise of one another with it."""
    exact, dropping = make(0.0, 8), make(rate, 8)
    for _ in range(4):
        for training in exact.values():
            training()
    before, after = (np.array(training.losses) for training in exact.values())
    assert np.allclose(before, after, rtol=1e-3)
    for _ in range(CURVE):
        for training in dropping.values():
            training()
    before, after = (np.array(training.losses) for training in dropping.values())
    print("loss before and after, mean of the last quarter:", end=" ")
    print(before[-CURVE // 4 :].mean(), after[-CURVE // 4 :].mean())
    # Both see the same batches, so what is left of their differences is dropout's noise.
    difference = before - after
    noise = difference.std() / len(difference) ** 0.5
    assert abs(difference.mean()) < 4 * noise + 2e-3 * before.mean()


def race(
    benchmark,
    recorder: Recorder,
    case: str,
    batch: int,
    rate: float,
    made: dict[str, swap.Training],
) -> None:
    runners = Race(dict(made))
    benchmark.pedantic(runners.subject, setup=runners.others, rounds=ROUNDS)
    if benchmark.enabled:
        parts: dict[str, list[dict[str, float]]] = {name: [{}] for name in made}
        rows = recorder.record_steps(case, batch, runners, parts, dropout=rate)
        benchmark.extra_info["speedup"] = rows["op"][0].speedup


def pytorch_style(dataset: Dataset, kind: str) -> Callable[[float, int], dict[str, swap.Training]]:
    return lambda rate, count: swap.sasrec_pytorch(dataset, kind, rate=rate, count=count, **PYTORCH)


def recbole_style(dataset: Dataset) -> Callable[[float, int], dict[str, swap.Training]]:
    pytest.importorskip("recbole", reason="RecBole is not installed")
    return lambda rate, count: swap.recbole(dataset, rate=rate, count=count, **RECBOLE)


@pytest.mark.parametrize("kind", ["query-zeros", "post", "recbole"])
@pytest.mark.usefixtures("same_threads_afterwards")
def test_loss_curves(dataset: Dataset, kind: str) -> None:
    torch.set_num_threads(1)
    if kind == "recbole":
        check_curves(recbole_style(dataset), 0.5)
    else:
        check_curves(pytorch_style(dataset, kind), 0.2)


@pytest.mark.parametrize("kind", ["query-zeros", "query", "post", "pre"])
@pytest.mark.usefixtures("same_threads_afterwards")
def test_sasrec_pytorch(benchmark, recorder: Recorder, dataset: Dataset, kind: str) -> None:
    torch.set_num_threads(1)
    made = pytorch_style(dataset, kind)(0.2, 4)
    race(benchmark, recorder, f"swap-sasrec-pytorch-{kind}", PYTORCH["batch"], 0.2, made)


@pytest.mark.usefixtures("same_threads_afterwards")
def test_recbole(benchmark, recorder: Recorder, dataset: Dataset) -> None:
    torch.set_num_threads(1)
    made = recbole_style(dataset)(0.5, 4)
    race(benchmark, recorder, "swap-recbole-sasrec", RECBOLE["batch"], 0.5, made)
