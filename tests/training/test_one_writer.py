"""One writer a run folder, and what writers leave there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lares.errors import ConfigError, DataError, LaresError
from lares.training.lock import LOCK_FILE, held
from lares.training.options_file import yaml_text
from lares.training.run_folder import RunFolder
from lares.training.spt import train
from lares.training.trainer import Trainer
from tests.training.helpers import small_config

HOLDER = """
import sys, time
from pathlib import Path
from lares.training.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_told_who_is_first(tmp_path: Path) -> None:
    with held(tmp_path):
        with pytest.raises(ConfigError) as caught:
            with held(tmp_path):
                pass
        assert f"{tmp_path} is in use: process {os.getpid()} on {os.uname().nodename}" in str(
            caught.value
        )
    assert not (tmp_path / LOCK_FILE).exists()
    with held(tmp_path):
        pass


def test_a_lock_ends_with_its_process(interactions: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    config = small_config(interactions, trainer={"max_epochs": 1})
    for resume in (False, True):
        with pytest.raises(ConfigError, match=f"in use: process {process.pid} on "):
            train(config, tmp_path, resume=resume, progress=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK_FILE).exists()
    train(config, tmp_path, progress=False)
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_lock_file_removed_under_our_feet(tmp_path: Path) -> None:
    """Two who open it one after the other must not both hold it."""
    with held(tmp_path):
        (tmp_path / LOCK_FILE).unlink()
        (tmp_path / LOCK_FILE).touch()  # another file of the same name, which nobody holds
        with held(tmp_path):
            assert (tmp_path / LOCK_FILE).read_text().startswith("process")


def test_a_second_run_while_one_is_in_its_middle(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(interactions, trainer={"max_epochs": 1})
    step, told = Trainer._step, []

    def tries(self, indices):
        with pytest.raises(ConfigError) as caught:
            train(config, tmp_path / "run", resume=True, progress=False)
        told.append(str(caught.value))
        return step(self, indices)

    monkeypatch.setattr(Trainer, "_step", tries)
    train(config, tmp_path / "run", progress=False)
    assert told
    assert all("is in use" in message for message in told)


def test_files_that_a_killed_run_left_are_cleared(interactions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(small_config(interactions, trainer={"max_epochs": 1}), folder, progress=False)
    left = [
        folder / ".metrics.csv.12ab34cd.part",
        folder / "best" / ".model.safetensors.12ab34cd.part",
        folder / "checkpoints" / ".last.safetensors.12ab34cd.part",
    ]
    for path in left:
        path.write_bytes(b"half")
    longer = small_config(interactions, trainer={"max_epochs": 2})
    train(longer, folder, resume=True, progress=False)
    assert not any(path.exists() for path in left)


def test_what_others_have_is_left_alone(interactions: Path, tmp_path: Path) -> None:
    """A folder that is no run, and what is of no run in one that is."""
    others = [
        tmp_path / "runs" / "films" / ".holiday.mkv.part",
        tmp_path / "runs" / ".a.12ab34cd.part",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with pytest.raises(ConfigError, match="no run"):
        train(small_config(interactions), tmp_path / "runs", resume=True, progress=False)
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("folder_is_there", [False, True])
@pytest.mark.parametrize("where", ["_start_line", "fit", "_step"])
def test_a_run_that_fails_at_its_start_leaves_nothing(
    interactions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    folder_is_there: bool,
) -> None:
    def fails(self, *arguments):
        raise LaresError("no")

    folder = tmp_path / "runs" / "a" / "run"
    if folder_is_there:
        (folder / "best").mkdir(parents=True)
        (folder / "best" / "thesis.txt").write_text("years of work")
    monkeypatch.setattr(Trainer, where, fails)
    config = small_config(interactions, trainer={"tensorboard": True})
    with pytest.raises(LaresError, match="no"):
        train(config, folder, progress=False)
    if folder_is_there:
        assert [*folder.rglob("*")] == [folder / "best", folder / "best" / "thesis.txt"]
    else:
        assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "sections",
    [{"model": {"text_features": "none.npy"}}, {"data": {"core": 1000}}],
    ids=["text features", "core"],
)
def test_an_option_that_fails_late_leaves_nothing(
    interactions: Path, tmp_path: Path, sections: dict
) -> None:
    with pytest.raises(DataError):
        train(small_config(interactions, **sections), tmp_path / "run", progress=False)
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_fails_later_stays(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self):
        raise LaresError("no")

    monkeypatch.setattr(Trainer, "_validate", fails)
    config = small_config(interactions, trainer={"checkpoint_every_steps": 1})
    with pytest.raises(LaresError):
        train(config, tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert train(config, tmp_path / "run", resume=True, progress=False).epochs == 2


def test_two_who_begin_at_once(interactions: Path, tmp_path: Path) -> None:
    """Exactly one goes on, whichever it is, and the other is told; folders above are there, too."""
    config = small_config(interactions)

    def begins(folder: Path, ready: threading.Barrier, told: list[str]) -> None:
        ready.wait()
        try:
            RunFolder(folder).look(config, resume=False)
            with RunFolder(folder).held(config, resume=False):
                (folder / "config.yaml").write_text(yaml_text(config.to_dict()))
                told.append("went on")
        except ConfigError as error:
            told.append(str(error))

    for turn in range(60):
        folder, ready, told = tmp_path / str(turn) / "runs" / "run", threading.Barrier(2), []
        both = [threading.Thread(target=begins, args=(folder, ready, told)) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert told.count("went on") == 1
        (other,) = (each for each in told if each != "went on")
        assert "is in use: " in other or "holds a run already" in other
        assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_who_looks_holds_the_folder(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder, check, told = small_config(interactions), tmp_path / "run", RunFolder.check, []

    def meanwhile(self, config, resume):
        monkeypatch.setattr(RunFolder, "check", check)
        for other in (
            lambda: RunFolder(folder).look(config, resume),
            lambda: train(config, folder, resume=resume, progress=False),
        ):
            with pytest.raises(ConfigError, match="is in use") as caught:
                other()
            told.append(caught)
        check(self, config, resume)

    monkeypatch.setattr(RunFolder, "check", meanwhile)
    RunFolder(folder).look(config, resume=False)
    assert len(told) == 2
    assert not folder.exists()


@pytest.mark.parametrize("removed", ["run", "."])
def test_a_folder_that_goes_as_another_leaves_it(
    removed: str, interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making the folder and locking it."""
    config, folder, opened = small_config(interactions), tmp_path / "runs" / "run", []

    def opens(path: Path, *options: Any) -> int:
        if not opened and path == folder / LOCK_FILE:
            opened.append(path)
            folder.rmdir()
            if removed == ".":
                folder.parent.rmdir()
        return really(path, *options)

    really = os.open
    monkeypatch.setattr("lares.training.lock.os.open", opens)
    with RunFolder(folder).held(config, resume=False):
        assert (folder / LOCK_FILE).exists()
    assert opened
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_two_commands_at_the_same_time(interactions: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lares", "train", str(interactions)]
    command += ["--out", str(tmp_path / "run"), "--trainer.max_epochs=1", "--no_progress"]
    command += ["--model.d_model=16", "--model.d_ff=16", "--optimizer.batch_size=64"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=240)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    loser = errors[0] if both[0].returncode else errors[1]
    assert loser.startswith("error: ")
    assert loser.count("\n") == 1


@pytest.mark.long
def test_two_commands_at_once(interactions: Path, tmp_path: Path) -> None:
    """Whoever is second says so and ends; the first is not disturbed."""
    command = [sys.executable, "-m", "lares", "train", str(interactions)]
    command += ["--out", str(tmp_path / "run"), "--trainer.max_epochs=3", "--no_progress"]
    command += ["--model.d_model=16", "--model.d_ff=16", "--optimizer.batch_size=64"]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True)]
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.append(subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert started[0].returncode == 0, errors[0]
    if started[1].returncode:  # else the first was done before the second began
        assert f"in use: process {started[0].pid}" in errors[1]
