"""The GPU benchmark, run here at tiny shapes on the CPU, and what it makes of its rows."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.cases import gpu_peers
from benchmarks.cases.equality import check
from benchmarks.cases.gpu import MAIN, compiled_cases, first_cases, quick, sweep_cases
from benchmarks.core.clock import captured, limited, products
from benchmarks.core.race import Race, Sample
from benchmarks.gpu import measure as gpu
from benchmarks.gpu import tests as gpu_tests
from benchmarks.gpu.card import Card
from benchmarks.report.gpu_goals import GOALS, verdicts
from benchmarks.report.page import main, markers
from benchmarks.report.results import GpuRow, Row, append_rows, read_rows
from benchmarks.report.sections import write_report
from tests.benchmarks.report.test_page import ROWS

RUN = {"date": "2026-01-03", "revision": "abc", "machine": "a card", "python": "3", "torch": "2"}
SMALL = replace(quick(MAIN), device="cpu", precision="fp32")


def gpu_row(case: str, implementation: str, median_us: float, **values: object) -> GpuRow:
    given = {**RUN, "threads": 1, "precision": "bf16", "passes": "forward", "dropout": 0.0}
    given |= dict.fromkeys(("median_us", "q1_us", "q3_us"), median_us)
    shape = {"d_model": 64, "n_heads": 2, "d_ff": 256, "n_layers": 2, "steps": 4, "batch": 1024}
    given |= {**shape, "max_length": 20, "lengths": "prefixes", "floor_us": 10.0, **values}
    return GpuRow(case=case, implementation=implementation, **given)  # type: ignore[arg-type]


BOTH = {"passes": "forward+backward", "dropout": 0.5}
GPU_ROWS = [
    gpu_row("main", "explicit", 900.0),
    gpu_row("main", "op:reference", 5.0),
    gpu_row("main", "op:triton", 30.0, speedup=30.0),
    gpu_row("main-compiled", "step-compiled", 400.0),
    gpu_row("main-compiled", "whole-reduced", 150.0),
    gpu_row("main-compiled", "op:triton", 30.0),
    gpu_row("main", "explicit", 2000.0, **BOTH),
    gpu_row("main", "op:triton", 210.0, **BOTH),
    gpu_row("single-20", "op:triton", 25.0, batch=1, lengths="full", wall_us=90.0, host_us=60.0),
    gpu_row("steps-8", "op:triton", 55.0, steps=8),
    GpuRow(**RUN, threads=1, case="first-call", implementation="op:triton", precision="bf16",
           wall_us=3.5e6),
]  # fmt: skip


def test_the_whole_path(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--quick", "--no-compile", "--no-tests"]
    assert gpu.main(["--out", str(tmp_path), *options]) == 0
    rows = read_rows(tmp_path / "rows.csv", GpuRow)
    found = {(row.case, row.passes, row.precision, row.implementation) for row in rows}
    for case in [*first_cases(), *compiled_cases(), *sweep_cases()]:
        for name in ("plain", "op:cpu"):
            assert (case.name, case.passes, case.precision, name) in found
    assert {"plain", "op"} == {row.implementation for row in rows if row.case.startswith("spt-")}
    assert all(row.machine.endswith("no GPU") for row in rows)
    assert {"peak", "bandwidth", "launch"} <= {row.case for row in rows}
    (first,) = (row for row in rows if row.case == "first-call")
    assert (first.implementation, first.precision) == ("op:cpu", "bf16")
    assert 0 < 1e-6 * (first.wall_us or 0.0) < 60
    assert "the first call of a fresh process (op:cpu)" in (tmp_path / "report.md").read_text()
    assert "not measured: 50 items" in (tmp_path / "log.txt").read_text()
    assert "| width-256 | forward+backward | bf16 | 0.5 | op:cpu |" in (
        tmp_path / "report.md"
    ).read_text(encoding="utf-8")
    assert (tmp_path / "profile-plain.json.gz").stat().st_size > 1000
    assert "addmm" in (tmp_path / "profile-plain.txt").read_text()


def test_no_time_left_is_told(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--quick", "--no-tests", "--minutes", "0.01"]
    assert gpu.main(["--out", str(tmp_path), *options]) == 0
    assert "out of time: main, forward, bf16" in (tmp_path / "log.txt").read_text()
    assert {row.case for row in read_rows(tmp_path / "rows.csv", GpuRow)} == {
        "peak",
        "bandwidth",
        "launch",
    }


def test_what_was_measured_survives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it from the keyboard or, as batch systems do, by a signal."""

    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(gpu.Run, "race", stop)
    options = ["--device", "cpu", "--quick", "--no-tests"]
    assert gpu.main(["--out", str(tmp_path), *options]) == 0
    assert "stopped" in (tmp_path / "log.txt").read_text()
    assert "report.md" in (tmp_path / "log.txt").read_text()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


GPU_TESTS = """
import time
import pytest
pytestmark = pytest.mark.gpu

@pytest.mark.parametrize("number", range(3))
def test_right(number):
    pass

def test_wrong():
    {}
"""


@pytest.mark.parametrize(
    ("last", "seconds", "wrong"),
    [("assert False", 120.0, "1 failed"), ("time.sleep(99)", 6.0, "stopped after 6 s")],
)
def test_tests_of_a_card(
    last: str, seconds: float, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs one\n")
    file = tmp_path / "test_card.py"
    file.write_text(GPU_TESTS.format(last))
    said: list[str] = []
    (found,) = gpu_tests.run_tests(tmp_path, seconds, said.append, [str(file)])
    assert wrong in found
    assert wrong in said[0]
    assert wrong in (tmp_path / "tests.txt").read_text()


def test_the_tests_of_the_kernels_are_found() -> None:
    names = {Path(file).name for file in gpu_tests.gpu_tests()}
    assert {"test_triton_gpu.py", "test_layered_gpu.py"} <= names


def test_what_is_wrong_gets_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_peers.ExplicitCore.layer
    monkeypatch.setattr(gpu_peers.ExplicitCore, "layer", lambda *arguments: 1.1 * right(*arguments))
    run = gpu.Run(tmp_path, 1.0, "cpu", quick=True, compiles=False)
    run.race(replace(MAIN, precision="fp32"), Card(1.0, {"fp32": 1.0}, Sample(0.0, 0.0)))
    names = {row.implementation for row in read_rows(run.rows_file, GpuRow)}
    assert "plain" in names
    assert "explicit" not in names
    assert not run.report(), "a wrong result is a failure of the run"
    assert "explicit" in run.broken[0]


@pytest.mark.parametrize("name", ["explicit", "varlen"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("backward", [False, True])
def test_peers_equal_the_equations(name: str, precision: str, backward: bool) -> None:
    with products(precision):
        check(name, replace(SMALL, precision=precision, backward=backward))


def test_a_device_clock_is_told_apart() -> None:
    samples = iter([Sample(9.0, 0.0, 9.0, 9.0), Sample(4.0, 0.0, 2.0, 1.0), Sample(6.0, 0.0, 2.0)])
    race = Race({"a": lambda: None}, clock=lambda call: next(samples))
    for _ in range(2):
        race.others()
        race.subject()
    found = race.summary("a")
    assert (found.median, found.wall_median) == (2.0, 5.0)


def test_the_floor_by_hand() -> None:
    # One token: 32 d^2 = 512 for products of weights where f = 3 d, 4 d = 16 for attention.
    case = replace(SMALL, d_model=4, d_ff=12, n_heads=1, n_layers=1, steps=1)
    card = Card(bandwidth=8.0, rates={"fp32": 1.0}, launch=Sample(0.0, 0.0))
    assert card.floor_us(case, [1]) == 1e6 * (8 * 16 + 4 * 4 * 12 + 16)
    slow = card._replace(rates={"fp32": 1e9})
    weights = 4 * (4 * 4 + 2 * 12)
    assert slow.floor_us(case, [1]) == 1e6 * 4 * (4 + weights + 4) / 8.0


def test_a_time_limit() -> None:
    with pytest.raises(TimeoutError, match="waiting took more"), limited(0.05, "waiting"):
        time.sleep(5)
    with limited(0.05, "nothing"):
        pass
    time.sleep(0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_graphs_need_a_gpu() -> None:
    with pytest.raises(RuntimeError, match="need a GPU"):
        captured(list)


def test_goals() -> None:
    found = {verdict.goal.text: verdict for verdict in verdicts(GPU_ROWS)}
    assert len(found) == len(GOALS)
    met = [verdict.met for verdict in found.values()]
    # 150 / 30 is no 6; 900 / 30 is over 25; 210 is over 190; no compiled backward; no 50 items;
    # 3.5 s is over 3.
    assert met == [True, False, True, False, None, None, True, False]
    assert (
        "MISSED: main case, forward, at least 6 times as fast as the best compiled program: 5"
        in [str(verdict) for verdict in found.values()]
    )


def test_rows_of_a_card_come_back_as_written(tmp_path: Path) -> None:
    append_rows(tmp_path / "gpu.csv", GPU_ROWS)
    assert read_rows(tmp_path / "gpu.csv", GpuRow) == GPU_ROWS
    with pytest.raises(ValueError, match="has columns"):
        append_rows(tmp_path / "gpu.csv", ROWS)


def test_the_report_of_a_run(tmp_path: Path) -> None:
    write_report(GPU_ROWS, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| case | pass | precision | dropout | what ran | device | quartiles | x first |" in text
    assert "| main | forward | bf16 | 0 | op:triton | 30 us | 30 us .. 30 us | 30.00 |" in text
    assert "| 10 us | 3.0 x |" in text
    for name in ("gpu-compared-forward", "gpu-depth-forward", "gpu-floor-training"):
        assert (f"(./{name}.svg)" in text) == (tmp_path / f"{name}.svg").exists()
    assert (tmp_path / "gpu-floor-forward.svg").exists()
    assert not (tmp_path / "gpu-batch-forward.svg").exists(), "one batch is no curve"


def test_the_page_has_a_part_for_cards_where_there_are_rows(tmp_path: Path) -> None:
    begin, _ = markers("gpu")
    cpu: list[Row] = ROWS
    append_rows(tmp_path / "rows.csv", cpu)
    page, files = tmp_path / "page.md", ["--results", str(tmp_path / "rows.csv")]
    files += ["--gpu-results", str(tmp_path / "gpu.csv"), "--page", str(page)]
    main(files)
    assert begin not in page.read_text()
    append_rows(tmp_path / "gpu.csv", GPU_ROWS)
    main(files)
    main(files)
    text = page.read_text()
    assert text.count(begin) == 1
    assert "a card; Python 3, torch 2; revision abc of 2026-01-03." in text
    assert "(page/gpu-floor-forward.svg)" in text
