"""Stopping a run: what it says, how it ends, how it goes on, and what its numbers come to."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lares.cli import main
from lares.cli.run_command import saying_how_to_go_on
from lares.errors import LaresError
from lares.training.interrupts import Interrupted, stop_request
from lares.training.loggers import read_rows
from lares.training.result import TrainResult
from lares.training.rpt import posttrain
from lares.training.spt import train
from lares.training.trainer import Trainer
from tests.training.helpers import small_config, small_posttrain_config

SMALL = (
    "--model.d_model=16 --model.d_ff=16 --model.max_length=8 --optimizer.batch_size=64 "
    "--trainer.num_threads=1 --trainer.tensorboard=false --trainer.accelerator=cpu "
    "--trainer.max_epochs=2 --trainer.test_depths=[1] --no_progress"
).split()
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def stops_after(monkeypatch: pytest.MonkeyPatch, steps: int, *signals: int) -> None:
    """Signals come while a run takes its step of that number, counted over starts."""
    step, taken = Trainer._step, []

    def stops(self, indices):
        taken.append(1)
        if len(taken) == steps:
            for number in signals:
                signal.raise_signal(number)
        return step(self, indices)

    monkeypatch.setattr(Trainer, "_step", stops)


def ended(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Exit status and standard error of a command that does not come to its end."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "run")]
    + [(signal.SIGINT, name) for name in ("a run's folder", "-run", "--resume", "aside/../run")]
    + [(signal.SIGINT, "two\nlines\tand\x1b")],
)
def test_the_message_holds_the_command_that_goes_on(
    interactions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    stops_after(monkeypatch, 3, number)
    status, told = ended(capfd, "train", str(interactions), f"--out={name}", *SMALL)
    assert status == 128 + number
    assert "stopping after this step; again to stop at once" in told
    assert "error" not in told
    assert "stopped after step 3" in told
    command = told[told.index("lares train") :].splitlines()[0].removeprefix("lares ")
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, text=True
    ).stdout.split("\0")[:-1]
    out = [f"--out={name}"] if name.startswith("-") else ["--out", name]
    assert words == ["train", *out, "--resume"]
    main(words)
    assert "best epoch" in capfd.readouterr().out


def test_the_second_signal_stops_at_once(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    stops_after(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    status, told = ended(capfd, "train", str(interactions), "--out", "run", *SMALL)
    assert status == 130
    assert "stopped at once" in told
    assert "lares train --out run --resume" in told
    main(["train", "--out", "run", "--resume"])


LOST = (
    "[/x/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:5: Connection reset "
    "by peer. This is typically caused by a remote worker\nmore",
    "Connection closed by peer [127.0.0.1]:5",
    "NCCL error in: x.cpp:3, remote process exited or there was a network error",
)


@pytest.mark.parametrize("reason", LOST)
@pytest.mark.parametrize("begun", [False, True])
def test_a_process_that_is_gone(reason: str, begun: bool, tmp_path: Path) -> None:
    if begun:
        (tmp_path / "config.yaml").write_text("{}")
    with (
        pytest.raises(LaresError, match="another process of the run has ended") as caught,
        saying_how_to_go_on(tmp_path, "train", is_first=True),
    ):
        raise RuntimeError(reason)
    assert "\n" not in str(caught.value)
    assert (f"lares train --out {tmp_path} --resume" in str(caught.value)) == begun
    with (
        pytest.raises(SystemExit, match="2"),
        saying_how_to_go_on(tmp_path, "train", is_first=False),
    ):
        raise RuntimeError(reason)
    with (
        pytest.raises(RuntimeError, match="of another kind"),
        saying_how_to_go_on(tmp_path, "train", is_first=True),
    ):
        raise RuntimeError("of another kind")


def test_the_first_signal_asks_and_the_second_is_as_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_request() as stop:
        assert stop.number == 0
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        assert [signal.getsignal(number) for number in SIGNALS] == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_run_stops_also_where_nobody_reads_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(number: int, text: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("lares.training.interrupts.os.write", closed)
    with stop_request() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT


@pytest.mark.parametrize("when", ["_validate", "_save"])
def test_a_signal_between_epochs_is_heard_there(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    function = getattr(Trainer, when)

    def stops(self):
        found = function(self)
        if self.progress.epoch == 1:
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(Trainer, when, stops)
    config = small_config(interactions, trainer={"max_epochs": 3, "checkpoint_every_steps": 0})
    with pytest.raises(Interrupted) as caught:
        train(config, tmp_path / "run", progress=False)
    assert caught.value.exit_status == 143
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert f"stopped after step {row['steps']};" in str(caught.value)


def test_post_training_stopped_before_its_first_step(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured of its start is kept."""
    train(small_config(interactions, trainer={"max_epochs": 1}), tmp_path / "run", progress=False)
    config = small_posttrain_config(interactions, tmp_path / "run", trainer={"max_epochs": 1})
    begin = Trainer._begin

    def stops(self):
        signal.raise_signal(signal.SIGINT)
        begin(self)

    monkeypatch.setattr(Trainer, "_begin", stops)
    with pytest.raises(Interrupted, match=r"stopped after step 0; .* lares posttrain --out"):
        posttrain(config, tmp_path / "rpt", progress=False)
    assert len(read_rows(tmp_path / "rpt" / "metrics.csv")) == 1
    assert posttrain(config, tmp_path / "rpt", resume=True, progress=False).epochs == 1


def test_resume_finds_the_default_folder(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(interactions)
    status, told = ended(capsys, "train", data, "--resume")
    assert status == 2
    assert "--resume needs --out RUN: there is no run in runs/walks-lares or" in told
    stops_after(monkeypatch, 3, signal.SIGINT)
    assert ended(capsys, "train", data, *SMALL)[0] == 130
    main(["train", data, "--resume", "--no_progress"])
    assert "run folder runs/walks-lares" in capsys.readouterr().out
    # A folder by recipe, and then it takes a word which of both is meant.
    main(["train", data, "--recipe=sasrec", *SMALL])
    status, told = ended(capsys, "train", data, "--resume")
    assert "there are several runs, runs/walks-lares or runs/walks-sasrec" in told
    main(["train", data, "--recipe=sasrec", "--resume"])
    assert "run folder runs/walks-sasrec" in capsys.readouterr().out
    # And of post-training.
    rest = [option for option in SMALL if not option.startswith("--model")]
    rest += ["--objective.k=2"]
    assert (
        "no run in runs/walks-lares-rpt"
        in ended(capsys, "posttrain", "runs/walks-lares", "--resume")[1]
    )
    main(["posttrain", "runs/walks-lares", *rest])
    main(["posttrain", "runs/walks-lares", "--resume"])
    assert "run folder runs/walks-lares-rpt" in capsys.readouterr().out
    assert "--resume needs --out RUN" in ended(capsys, "posttrain", "--resume")[1]


def test_timing_sums_to_what_the_run_took(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it was stopped; else epochs that were cut would lack what came before the cut."""
    step, starts = Trainer._step, 0

    def stops(self, indices):
        found = step(self, indices)
        time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(Trainer, "_step", stops)
    config = small_config(interactions, trainer={"max_epochs": 2})
    while True:
        starts += 1
        try:
            result = train(config, tmp_path / "run", resume=starts > 1, progress=False)
            break
        except Interrupted:
            pass
    with open(tmp_path / "run" / "timing.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    seconds = sum(row["train_seconds"] + row["valid_seconds"] for row in rows)
    assert seconds == pytest.approx(result.seconds, abs=0.06)
    samples = [row["samples_per_second"] * row["train_seconds"] for row in rows]
    assert samples[0] == pytest.approx(samples[1], rel=0.01)


def test_a_finished_run_keeps_its_result(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions, trainer={"max_epochs": 1})
    first = train(config, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "result.json"
    before = path.read_bytes()
    again = train(config, tmp_path / "run", resume=True, progress=False)
    assert path.read_bytes() == before
    assert again == first
    # What is asked for anew is tested anew.
    other = small_config(interactions, trainer={"max_epochs": 1, "test_depths": [2]})
    assert list(train(other, tmp_path / "run", resume=True, progress=False).test) == [2]
    drawn = small_config(interactions, trainer={"max_epochs": 1, "test_states": "drawn"})
    result = train(drawn, tmp_path / "run", resume=True, progress=False)
    assert result.test != first.test
    assert TrainResult.load(path) == result
    path.unlink()
    assert train(config, tmp_path / "run", resume=True, progress=False).test == first.test


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"test": 3}'])
def test_a_result_that_cannot_be_read_is_made_again(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert TrainResult.load(path) is None


def result_of(run: Path) -> dict[str, Any]:
    """What ``result.json`` of a finished run holds."""
    return json.loads((run / "result.json").read_text())


def test_a_result_of_other_things_is_made_again(interactions: Path, tmp_path: Path) -> None:
    config = small_config(interactions, trainer={"max_epochs": 1})
    first = train(config, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "result.json"
    whole = result_of(tmp_path / "run")
    assert TrainResult.load(path) == first
    depth, name = next(iter(whole["test"])), "recall@5"
    lacking = {key: value for key, value in whole["test"][depth].items() if key != name}
    wrong = [None, [], {}, "x", [[1]], True]
    changes: list[dict[str, Any]] = [
        *({"test": {depth: value}} for value in (*wrong, 1e308, 3)),
        *({"test": {depth: {**whole["test"][depth], name: value}}} for value in wrong),
        {"test": {depth: lacking}},
        {"start": {depth: {}}},
        {"compared": {"history ranked": {}}},
        {"compared": {name: {"depth 1": {}} for name in ("history ranked", "history removed")}},
        *(
            {key: value}
            for key in whole
            if key not in ("test", "start", "command", "test_states", "curves", "next")
            for value in wrong
            if not (value == {} and isinstance(whole[key], dict))
        ),
        *({key: {"host": value}} for key in ("parts", "peak_memory_mib") for value in wrong),
    ]
    for change in changes:
        path.write_text(json.dumps({**whole, **change}))
        assert TrainResult.load(path) is None, change
    again = train(config, tmp_path / "run", resume=True, progress=False)
    assert (again.test, TrainResult.load(path)) == (first.test, again)


def test_a_result_without_the_start_is_made_again(
    interactions: Path, tmp_path: Path, capsys
) -> None:
    """Such as that of the run whose model was post-trained, copied there by mistake."""
    small = {"max_epochs": 1}
    train(small_config(interactions, trainer=small), tmp_path / "run", progress=False)
    config = small_posttrain_config(interactions, tmp_path / "run", trainer=small)
    first = posttrain(config, tmp_path / "rpt", progress=False)
    path = tmp_path / "rpt" / "result.json"
    whole = result_of(tmp_path / "rpt")
    for content in (
        {**whole, "start": {}},
        {**whole, "start": {"3": next(iter(whole["start"].values()))}},
        result_of(tmp_path / "run"),
    ):
        path.write_text(json.dumps(content))
        main(["posttrain", f"--out={tmp_path / 'rpt'}", "--resume"])
        assert "Before:" in capsys.readouterr().out
        found = TrainResult.load(path)
        assert found is not None
        assert (found.start, found.test) == (first.start, first.test)


def test_what_a_run_shows(interactions: Path, tmp_path: Path, capsys) -> None:
    train(small_config(interactions, trainer={"max_epochs": 3}), tmp_path / "run")
    printed = capsys.readouterr()
    assert printed.err == ""  # no terminal, no bar
    shown = printed.out.splitlines()
    begin = next(number for number, line in enumerate(shown) if line.startswith("walks: "))
    first, second, *lines = shown[begin:]
    assert re.fullmatch(
        r"walks: [\d,]+ interactions of 60 users with 25 items, [\d,]+ training samples", first
    )
    assert re.fullmatch(
        rf"[\d,]+ parameters on cpu, backend \w+; run folder {tmp_path / 'run'}", second
    )
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [int(line.split()[1]) for line in epochs] == [1, 2, 3]
    estimates = [line for line in lines if "an epoch: at most" in line]
    assert len(estimates) == 1
    assert estimates[0].endswith("for the 2 to come")
    train(small_config(interactions), tmp_path / "silent", progress=False)
    assert (
        capsys.readouterr().out.splitlines() == shown[:begin]
    )  # notes on the data, which are always told


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.long
def test_the_exit_status_of_a_process(
    interactions: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "lares", "train", str(interactions), *SMALL]
    command += ["--out=run", "--trainer.max_epochs=100000", "--trainer.patience=100000"]
    command += ["--trainer.checkpoint_every_steps=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoints").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "lares train --out run --resume" in told
