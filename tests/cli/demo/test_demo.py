"""The demo as its user meets it, on drawn data and on real."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest

from lares.cli import main
from lares.cli.demo import default_folder, drawn, timings
from lares.cli.demo.timings import Timed
from lares.data.fetch.drawn import get_drawn
from lares.errors import LaresError
from lares.training.interrupts import Interrupted
from lares.training.trainer import Trainer
from tests.cli.failing import fails
from tests.conftest import write_interactions

FIGURE = re.compile(r"\d[.]\d|\d+ (ms|s|times|of)\b")


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a demo of the first drawn users, which spends no time on rounds."""
    lines = get_drawn(tmp_path / "all").read_text().splitlines()
    path = tmp_path / "few" / "drawn.csv"
    path.parent.mkdir()
    path.write_text("\n".join(line for line in lines if not "u0041" < line < "u9999"))
    monkeypatch.setattr("lares.cli.demo.get_drawn", lambda folder: path)
    monkeypatch.setattr(drawn, "_SECONDS", 0.0)
    monkeypatch.setattr(timings, "BATCH", 20)
    return tmp_path / "demo"


def test_on_drawn_data(few: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["demo", "--out", str(few), "--max_epochs=1", "--num_threads=1"]
    main(argv)
    told = capsys.readouterr().out
    paragraphs = [text.splitlines() for text in told.split("\n\n")]
    for lines in paragraphs:
        entries = re.split(r"\n(?! )", "\n".join(lines))  # indented lines go on with the one before
        for entry in entries:
            explained = entry.startswith(("Speed:", "  lares", "note:"))
            assert explained or not FIGURE.search(entry) or entry.startswith("drawn  "), entry
        assert all(len(line) <= 80 for line in lines if str(few)[:40] not in line), lines
    for model in ("SASRec", "LARES"):
        assert f"drawn  {model}: the same numbers: scores within" in told
        for what in ("epoch of 2 steps", "1 request, ", "40 requests"):
            assert re.search(rf"^drawn  {model} +{what}.* m?s .* [\d.]+x  \(", told, re.MULTILINE)
    assert (few / "demo.png").read_bytes().startswith(b"\x89PNG")

    # The command that it gives does what it says.
    listed = re.search(r"LARES recommends (.*?); likeliest", " ".join(told.split()))
    assert listed
    command = next(line for line in told.splitlines() if line.startswith("  lares recommend"))
    main([*shlex.split(command)[1:], "--k", "5"])
    assert capsys.readouterr().out.split() == [",".join(listed[1].split(", "))]

    # Again: nothing is trained anew.
    monkeypatch.setattr(Trainer, "_step", lambda self, indices: pytest.fail("it trains again"))
    main(argv)
    again = capsys.readouterr().out
    assert again.split("A recommendation")[1] == told.split("A recommendation")[1]


def test_another_backend_is_told(few: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARES_BACKEND", "equations")
    seen = []

    def stops(self: Timed) -> None:
        seen.append(self.model.recommend([[1]], k=1))
        raise LaresError("seen enough")

    monkeypatch.setattr(Timed, "agreement", stops)
    with pytest.raises(SystemExit):
        main(["demo", "--out", str(few), "--num_threads=1"])
    told = " ".join(capsys.readouterr().out.split())
    assert "not the CPU kernels but backend equations runs here (LARES_BACKEND=equations)" in told
    assert seen


def test_a_backend_that_there_is_not(few: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARES_BACKEND", "quick")
    assert "LARES_BACKEND is 'quick'" in fails(capsys, "demo", "--out", str(few))


@pytest.mark.parametrize("at_once", [False, True])
def test_stopped(at_once: bool, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*args: object, **options: object) -> None:
        raise KeyboardInterrupt if at_once else Interrupted("stopped", 15)

    data = write_interactions(tmp_path / "walks.parquet")
    monkeypatch.setattr("lares.cli.demo.real.train", stops)
    words = ["demo", "--data", str(data), "--out", str(tmp_path / "a demo"), "--num_threads=1"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == (130 if at_once else 143)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("stopped at once; " if at_once else "stopped; ")
    assert told.endswith(f"go on with: {shlex.join(['lares', *words])}\n")


def test_on_real_data(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, gone on with, and a third time: then nothing is trained again."""
    data = write_interactions(tmp_path / "ml.parquet", n_users=80)
    folder = tmp_path / "demo"
    argv = ["demo", "--data", str(data), "--out", str(folder), "--max_epochs=1", "--num_threads=1"]
    step = Trainer._step

    def stops(self, indices):
        signal.raise_signal(signal.SIGINT)
        return step(self, indices)

    monkeypatch.setattr(Trainer, "_step", stops)
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 130
    assert f"go on with: lares {' '.join(argv)}" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "_step", step)
    main(argv)
    first = capsys.readouterr().out
    for row in ("popularity", "SASRec (depth 0)", "LARES depth 1", "LARES depth 8"):
        assert row in first
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    main(shlex.split(first.rpartition("next: ")[2])[1:])
    assert len(capsys.readouterr().out.strip().split(",")) == 10
    main(argv)
    assert capsys.readouterr().out.split("Test,")[1] == first.split("Test,")[1]


def test_names_of_folders() -> None:
    assert default_folder("drawn") == Path("runs/demo")
    assert default_folder("ml-100k") == Path("runs/demo-ml-100k")
    assert default_folder("data/films.csv.gz") == Path("runs/demo-films")
    assert default_folder("amazon23/Books") == Path("runs/demo-Books")


def test_the_set_by_its_name(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called drawn is not taken for it, whose figures would be called drawn."""
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("drawn").mkdir()
    seen = []
    monkeypatch.setattr(drawn, "show", lambda configs, folder: seen.append((configs, folder)))
    main(["demo", "--data", "drawn"])
    ((configs, folder),) = seen
    assert folder == Path("runs/demo")
    assert {config.data.path for config in configs.values()} == {"runs/demo/drawn.csv"}
    assert configs["SASRec"].model_config(9).n_core_layers == 0
    assert configs["LARES"].model_config(9).is_recurrent
