"""An SPT epoch beside an epoch of RecBole's own SASRec, in turns, each in a process of its own.

RecBole needs another Python than this project: give one that has it in ``LARES_RECBOLE_PYTHON``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.core.entry import NotEqual, enter
from benchmarks.core.settings import EFFORT, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.steps.spt_data import USERS, drawn_dataset
from lares import LaresConfig, LaresModel
from lares.data.batches import epoch_order
from lares.data.dataset import Dataset
from lares.objectives.spt.config import SptConfig
from lares.training.spt_phases import SptPhase
from lares.training.steps import Place, batch_bounds

PYTHON = os.environ.get("LARES_RECBOLE_PYTHON", "")
PEER = Path(__file__).parent / "steps" / "recbole_peer.py"
BATCH, ROUNDS = 1024, 3


class Peer:
    """A process that trains an epoch of RecBole's SASRec whenever it is called."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        (folder / "drawn").mkdir()
        with (folder / "drawn" / "drawn.inter").open("w") as file:
            file.write("user_id:token\titem_id:token\ttimestamp:float\n")
            test = dataset.test
            for user, (start, end) in enumerate(zip(test.starts, test.ends, strict=True)):
                for place in range(start, end + 1):
                    file.write(f"u{user}\ti{test.items[place]}\t{place - start}\n")
        command = [PYTHON, str(PEER), str(folder), "drawn"]
        # As keep_freed_memory does here: without it RecBole would lose time to page faults.
        keeps = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **keeps},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.samples = int(self._answer("samples"))

    def __call__(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._answer("")

    def _answer(self, begins: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if (
                line.startswith(begins)
                and line[len(begins) :].replace(".", "").split()[0].isdigit()
            ):
                return line[len(begins) :]
        raise RuntimeError(f"{PYTHON} ended with status {self.process.wait()}")


class OurEpoch:
    """An epoch of SPT as ``lares train`` goes through it, without validation."""

    def __init__(self, dataset: Dataset) -> None:
        torch.manual_seed(0)
        model = LaresModel(LaresConfig(n_items=dataset.vocabulary.n_items))
        place = Place(0, 1, torch.device("cpu"))
        self.phase = SptPhase(model, SptConfig(), dataset.train, 0, place)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.epoch = 0

    def __call__(self) -> None:
        sizes = self.phase.sizes
        order, bounds = epoch_order(len(sizes), 0, self.epoch), batch_bounds(sizes, BATCH)
        self.phase.objective.train()
        for step in range(len(bounds) - 1):
            indices = order[bounds[step] : bounds[step + 1]]
            made = self.phase.make(indices, self.epoch * len(bounds) + step)
            for losses in self.phase.updates(self.phase.objective, made):
                losses[0].backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.epoch += 1


@pytest.mark.skipif(not PYTHON, reason="LARES_RECBOLE_PYTHON names no Python with RecBole")
@pytest.mark.skipif(EFFORT is QUICK, reason="whole epochs")
@pytest.mark.parametrize("data", USERS)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_epoch(benchmark, recorder: Recorder, request, tmp_path: Path, data: str) -> None:
    torch.set_num_threads(1)
    dataset = drawn_dataset(data)

    def peer() -> Peer:
        made = Peer(dataset, tmp_path)
        request.addfinalizer(made.process.terminate)
        if made.samples != len(dataset.train):
            raise NotEqual(f"RecBole has {made.samples} samples, not {len(dataset.train)}")
        return made

    makers = {"recbole-sasrec": peer, "op": lambda: OurEpoch(dataset)}
    race = enter(makers, ROUNDS, EFFORT.longest, warms_up=False)
    benchmark.pedantic(race.subject, setup=race.others, rounds=ROUNDS)
    if benchmark.enabled:
        parts: dict[str, list[dict[str, float]]] = {name: [{}] for name in race.runners}
        rows = recorder.record_steps(f"epoch-{data}", BATCH, race, parts, whole="epoch")
        benchmark.extra_info["speedup"] = rows["op"][0].speedup
