"""A disk that takes no more, wherever that happens: one line, and a run that goes on from there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lares.cli import main
from tests.cli.failing import fails
from tests.conftest import write_interactions

SMALL = (
    "--model.d_model=8 --model.d_ff=8 --model.max_length=4 --optimizer.batch_size=64 "
    "--trainer.num_threads=1 --trainer.accelerator=cpu --trainer.max_epochs=1 "
    "--trainer.tensorboard=false --trainer.test_depths=[1] --no_progress"
).split()


class Disk:
    """Counts the files that are finished, and has no room for one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written, self.full_at, self.code = 0, -1, errno.ENOSPC
        sync = os.fsync

        def fsync(handle: int) -> None:
            self.written += 1
            if self.written == self.full_at:
                raise OSError(self.code, os.strerror(self.code))
            sync(handle)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def test_training(tmp_path: Path, capsys, disk: Disk) -> None:
    data = write_interactions(tmp_path / "walks.parquet")
    main(["train", str(data), f"--out={tmp_path / 'whole'}", *SMALL])
    n_files, whole = disk.written, (tmp_path / "whole/metrics.csv").read_text()
    assert n_files >= 9
    for number in range(1, n_files + 1, 2):
        run = tmp_path / f"run{number}"
        disk.written, disk.full_at = 0, number
        disk.code = errno.ENOSPC if number % 4 == 1 else errno.EROFS
        error = fails(capsys, "train", str(data), f"--out={run}", *SMALL)
        assert os.strerror(disk.code) in error
        assert str(run) in error
        assert not parts(tmp_path)
        disk.full_at = -1
        if not (run / "config.yaml").exists():
            assert not run.exists()
            continue
        main(["train", f"--out={run}", "--resume", "--no_progress"])
        assert (run / "metrics.csv").read_text() == whole


def test_post_training(tmp_path: Path, capsys, disk: Disk) -> None:
    data = write_interactions(tmp_path / "walks.parquet")
    main(["train", str(data), f"--out={tmp_path / 'run'}", *SMALL])
    kept = [option for option in SMALL if not option.startswith("--model")]
    disk.written = 0
    main(["posttrain", str(tmp_path / "run"), f"--out={tmp_path / 'whole'}", *kept])
    for number in range(1, disk.written + 1, 3):
        out = tmp_path / f"rpt{number}"
        disk.written, disk.full_at = 0, number
        error = fails(capsys, "posttrain", str(tmp_path / "run"), f"--out={out}", *kept)
        assert os.strerror(errno.ENOSPC) in error
        assert not parts(tmp_path)
        disk.full_at = -1


def test_metrics_of_an_evaluation(tmp_path: Path, capsys, disk: Disk) -> None:
    data = write_interactions(tmp_path / "walks.parquet")
    run, output = tmp_path / "run", tmp_path / "metrics.json"
    main(["train", str(data), f"--out={run}", *SMALL])
    output.write_text("before")
    disk.written, disk.full_at = 0, 1
    error = fails(capsys, "evaluate", str(run), str(data), "--depths=1", f"--output={output}")
    assert f"{output} could not be written" in error
    assert output.read_text() == "before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", ["--help", "data info {data}"])
def test_output_into_a_full_disk(command: str, tmp_path: Path) -> None:
    data = write_interactions(tmp_path / "walks.parquet")
    argv = [sys.executable, "-m", "lares", *command.format(data=data).split()]
    # Where Python writes at once, nothing is left to tell whose error it was.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: No space left on device; make room there\n"


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "without a reader"])
def test_a_run_that_nobody_reads_goes_on(closed: bool, tmp_path: Path) -> None:
    data, run = write_interactions(tmp_path / "walks.parquet"), tmp_path / "run"
    words = [sys.executable, "-m", "lares", "train", str(data), f"--out={run}", *SMALL]
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        ["bash", "-c", 'exec "$@"' + " >&-" * closed, "bash", *words],
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "result.json").exists()


@pytest.mark.parametrize("room", [0, 3])
def test_logs_of_a_thread(room: int, tmp_path: Path, capsys, monkeypatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, written = RecordWriter.write, []

    def full(self: RecordWriter, data: bytes) -> None:
        written.append(data)
        if len(written) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    data, run = write_interactions(tmp_path / "walks.parquet"), tmp_path / "run"
    logged = [option.replace("tensorboard=false", "tensorboard=true") for option in SMALL]
    monkeypatch.setattr(RecordWriter, "write", full)
    error = fails(capsys, "train", str(data), f"--out={run}", *logged)
    assert "tensorboard could not be written" in error
    assert os.strerror(errno.ENOSPC) in error
    assert run.exists() == (room > 0)  # nothing is left where no step was taken
    if run.exists():
        main(["train", f"--out={run}", "--resume", "--trainer.tensorboard=false"])
        assert "best epoch" in capsys.readouterr().out
