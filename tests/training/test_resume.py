"""A run that is killed and resumed ends with the numbers of one that was not."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lares.errors import CheckpointError, ConfigError
from lares.training.interrupts import Interrupted
from lares.training.spt import train
from tests.training.helpers import small_config, stopped_after_every_step

PROGRAM = """
import sys, time
from pathlib import Path
from lares.training import spt, trainer
from lares.training.config import TrainConfig, read_yaml
step = trainer.Trainer._step
def slow(self, indices):
    time.sleep(0.03)  # so that the signal meets the run in its middle
    return step(self, indices)
trainer.Trainer._step = slow
config = TrainConfig.from_dict(read_yaml(Path(sys.argv[1])))
spt.train(config, Path(sys.argv[2]), resume=Path(sys.argv[2]).exists(), progress=False)
"""
OPTIONS = {"max_epochs": 6, "checkpoint_every_steps": 3, "patience": 20}


def outcome(folder: Path) -> tuple:
    state = load_file(folder / "checkpoints" / "last.safetensors")
    best = load_file(folder / "best" / "model.safetensors")
    return {**state, **{f"best.{k}": v for k, v in best.items()}}, (
        folder / "metrics.csv"
    ).read_text()


def assert_same(found: tuple, expected: tuple) -> None:
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, tensor in expected[0].items():
        assert found[0][name].equal(tensor), name


def start(config, folder: Path, tmp_path: Path) -> subprocess.Popen:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.to_dict()))
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(file), str(folder)])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_killed_at_any_moment(interactions: Path, tmp_path: Path, how: signal.Signals) -> None:
    config = small_config(interactions, trainer=OPTIONS)
    train(config, tmp_path / "whole", progress=False)
    folder = tmp_path / "cut"
    state = folder / "checkpoints" / "last.safetensors"
    for pause in (0.05, 0.21):
        process = start(config, folder, tmp_path)
        deadline = time.monotonic() + 60
        before = state.stat().st_mtime_ns if state.exists() else None
        while process.poll() is None and time.monotonic() < deadline:
            if state.exists() and state.stat().st_mtime_ns != before:
                break
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(how)
        process.wait(60)
    assert process.returncode != 0  # it was cut off, not done
    train(config, folder, resume=True, progress=False)
    assert_same(outcome(folder), outcome(tmp_path / "whole"))


def test_stop_after_every_single_step(interactions: Path, tmp_path: Path, monkeypatch) -> None:
    config = small_config(interactions, trainer={"max_epochs": 2, "checkpoint_every_steps": 0})
    train(config, tmp_path / "whole", progress=False)

    def says(error: Interrupted) -> None:
        assert "go on with --resume" in str(error)

    starts = stopped_after_every_step(train, config, tmp_path / "cut", monkeypatch, says)
    assert starts > 5
    assert_same(outcome(tmp_path / "cut"), outcome(tmp_path / "whole"))


def test_resuming_a_finished_run_changes_nothing(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions)
    first = train(config, tmp_path / "run", progress=False)
    before = outcome(tmp_path / "run")
    again = train(config, tmp_path / "run", resume=True, progress=False)
    assert again.test == first.test
    assert_same(outcome(tmp_path / "run"), before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no such pipes")
@pytest.mark.parametrize("name", ["checkpoints/last.safetensors", "result.json", "data.json"])
@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused(kind, name: str, interactions: Path, tmp_path: Path) -> None:
    """Opening a pipe that nobody else has open waits for ever."""
    config, place = small_config(interactions), tmp_path / "run" / name
    place.parent.mkdir(parents=True)
    kind(place)
    for resume in (False, True):
        with pytest.raises(ConfigError, match=f"{name} is no file"):
            train(config, tmp_path / "run", resume=resume, progress=False)
    assert [path for path in (tmp_path / "run").rglob("*") if path != place.parent] == [place]


def test_more_epochs_can_be_asked_for(interactions: Path, tmp_path: Path) -> None:
    train(small_config(interactions, trainer={"max_epochs": 3}), tmp_path / "whole", progress=False)
    train(small_config(interactions, trainer={"max_epochs": 1}), tmp_path / "more", progress=False)
    longer = small_config(interactions, trainer={"max_epochs": 3})
    assert train(longer, tmp_path / "more", resume=True, progress=False).epochs == 3
    assert_same(outcome(tmp_path / "more"), outcome(tmp_path / "whole"))


def test_full_disk_keeps_the_last_state(interactions: Path, tmp_path: Path) -> None:
    """A limit on file size stands for a disk that takes no more."""
    short = small_config(interactions, trainer={"max_epochs": 1})
    train(short, tmp_path / "run", progress=False)
    before = outcome(tmp_path / "run")
    longer = small_config(interactions, trainer={"max_epochs": 3})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="what was there before is untouched"):
            train(longer, tmp_path / "run", resume=True, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert outcome(tmp_path / "run")[0].keys() == before[0].keys()
    train(longer, tmp_path / "run", resume=True, progress=False)
    train(longer, tmp_path / "whole", progress=False)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))
