"""TensorBoard logs: what TensorBoard reads is what was logged, a run that went on included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lares.errors import CheckpointError
from lares.training.interrupts import Interrupted
from lares.training.loggers import Board
from lares.training.spt import train
from lares.training.trainer import Trainer
from tests.training.helpers import small_config


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }


def test_what_is_logged_is_read_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path / "logs", 0)
    board.add("train/loss", 0.5, 1)
    board.add("valid/ndcg@10", 0.25, 1)
    assert logged(tmp_path / "logs") == {"train/loss": [(1, 0.5)], "valid/ndcg@10": [(1, 0.25)]}
    board.close()
    board.check()


def test_a_run_that_goes_on_hides_what_it_does_again(tmp_path: Path) -> None:
    for first, steps in ((0, (1, 2, 3)), (2, (2, 3, 4))):
        board = Board(tmp_path, first)
        for step in steps:
            board.add("loss", step + first, step)
        board.close()
    assert logged(tmp_path) == {"loss": [(1, 1.0), (2, 4.0), (3, 5.0), (4, 6.0)]}


@pytest.mark.parametrize("stops_after", [0, 3])
def test_a_run_that_goes_on_keeps_what_it_has_logged(
    stops_after: int, interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every epoch and step once, whether the run ended after an epoch or was stopped within one."""
    options = {"tensorboard": True, "max_epochs": 3, "log_every": 1}
    whole = small_config(interactions, trainer=options)
    train(whole, tmp_path / "whole", progress=False)
    if stops_after:
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(Trainer, "_asked", lambda self, stop: self.progress.step == stops_after)
            train(whole, tmp_path / "run", progress=False)
    else:
        shorter = small_config(interactions, trainer={**options, "max_epochs": 1})
        train(shorter, tmp_path / "run", progress=False)
    train(whole, tmp_path / "run", resume=True, progress=False)
    folders = (tmp_path / "run", tmp_path / "whole")
    found, expected = (logged(folder / "tensorboard") for folder in folders)
    assert found == expected


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    board = Board(folder, 0)
    board.add("loss", 1.0, 1)
    board.close()
    assert [path.name.startswith("events.out.tfevents.") for path in folder.iterdir()] == [True]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError, match="file/logs could not be written: .*tensorboard false"
    ):
        Board(tmp_path / "file" / "logs", 0)
