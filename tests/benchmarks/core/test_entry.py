"""Who takes part in a benchmark: ours has to run, a peer that cannot is a row that says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor

from benchmarks import conftest, test_cpu
from benchmarks.cases import catalogue
from benchmarks.cases import op as cases
from benchmarks.cases.implementations import build
from benchmarks.core import entry
from benchmarks.core.entry import NotEqual, enter, is_ours, number_from, reason_of
from benchmarks.core.race import Race, Sample
from benchmarks.core.settings import DEFAULT, FULL, QUICK, effort_of
from benchmarks.report.recorder import Recorder
from benchmarks.report.results import CatalogueRow, read_rows
from benchmarks.report.sections import section
from benchmarks.report.tables import run_table
from tests.benchmarks.report.test_page import ROWS, row, timed
from tests.benchmarks.test_helpers import SMALL

Maker = Callable[[], Callable[[], object]]


def works() -> Callable[[], object]:
    return lambda: None


def raising(error: Exception) -> Maker:
    def make() -> Callable[[], object]:
        raise error

    return make


def turns(race: Race, rounds: int) -> None:
    for _ in range(rounds):
        race.others()
        race.subject()


def test_a_peer_that_raises_is_left_out_and_the_others_race() -> None:
    def breaks_when_called() -> Callable[[], object]:
        return lambda: [][0]

    makers = {
        "plain": works,
        "compiled": raising(RuntimeError("backend='inductor' raised:\nno C++ compiler\nmore")),
        "packed": breaks_when_called,
        "op:cpu": works,
    }
    race = enter(makers, rounds=2, longest=10.0)
    assert race.left_out == {
        "compiled": "RuntimeError: backend='inductor' raised: no C++ compiler",
        "packed": "IndexError: list index out of range",
    }
    turns(race, 2)
    assert {name: len(samples) for name, samples in race.samples.items()} == {
        "plain": 2,
        "op:cpu": 2,
    }
    assert race.summary("op:cpu").speedup is not None


@pytest.mark.parametrize("name", ["op", "op:cpu", "op:reference"])
def test_what_ours_raises_is_raised(name: str) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        enter({"plain": works, name: raising(RuntimeError("broken"))}, rounds=2, longest=10.0)


def test_a_peer_that_is_wrong_is_no_peer_that_cannot_run() -> None:
    with pytest.raises(NotEqual):
        enter({"plain": raising(NotEqual("wrong")), "op": works}, rounds=2, longest=10.0)


def test_a_peer_that_would_take_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "timed", lambda call: Sample(6.1, 6.1))
    race = enter({"plain": works, "op": works}, rounds=3, longest=12.0)
    assert race.left_out == {"plain": "one call takes 6.1 s; 3 rounds would pass 12 s"}
    assert race.pace == {"op": 6.1}, "ours takes as long as it takes"
    turns(race, 2)
    assert race.summary("op").speedup is None, "there is nothing to compare it with"
    assert not enter({"plain": works, "op": works}, 3, 12.0, warms_up=False).left_out


def test_compiling_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([Sample(0.1, 0.1), Sample(6.1, 6.1), Sample(0.2, 0.2), Sample(0.1, 0.1)])
    monkeypatch.setattr(entry, "timed", lambda call: next(calls))
    race = enter({"plain": works, "compiled": works, "op": works}, rounds=3, longest=12.0)
    assert not race.left_out
    assert race.pace == {"plain": 0.1, "compiled": 0.2, "op": 0.1}


def test_whose_an_implementation_is() -> None:
    assert [is_ours(name) for name in ("op", "op:cpu", "plain", "opera", "recbole-sasrec")] == [
        *(True, True),
        *(False, False, False),
    ]


def test_reasons_are_one_line() -> None:
    assert reason_of(MemoryError()) == "MemoryError: no message"
    assert len(reason_of(ValueError("x" * 999))) == entry.LONGEST_REASON
    killed = subprocess.CalledProcessError(-9, ["program"], stderr="")
    assert reason_of(killed) == "ended with status -9"


def test_numbers_from_other_processes() -> None:
    says, dies = [sys.executable, "-c", "print(7)"], [sys.executable, "-c", "import absent_peer"]
    assert number_from("plain", says) == 7
    assert number_from("plain", dies) == "ModuleNotFoundError: No module named 'absent_peer'"
    with pytest.raises(subprocess.CalledProcessError):
        number_from("op:cpu", dies)


class Benchmark(SimpleNamespace):
    """What a benchmark needs of pytest-benchmark's fixture."""

    def __init__(self) -> None:
        super().__init__(enabled=True, extra_info={})

    def pedantic(self, target: Callable[[], None], setup: Callable[[], None], rounds: int) -> None:
        setup()
        target()


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the programs of one name unable to run once they are checked."""

    def set_up(broken: str) -> None:
        def broken_build(name: str, *arguments: object) -> Callable[..., Tensor]:
            if name == broken:
                raise RuntimeError("needs another machine")
            return build(name, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(test_cpu, "build", broken_build)
        monkeypatch.setattr(test_cpu, "names_of", lambda case: ["plain", "packed", "op:reference"])
        monkeypatch.setattr(test_cpu, "EFFORT", QUICK._replace(budget=0.0, fewest=1))

    return set_up


@pytest.mark.parametrize("broken", ["plain", "packed"])
def test_a_case_with_a_broken_peer_passes(
    broken: str, breaks: Callable[[str], None], tmp_path: Path
) -> None:
    breaks(broken)
    benchmark = Benchmark()
    test_cpu.time_case(benchmark, Recorder(tmp_path / "rows.csv"), SMALL)
    found = {row.implementation: row for row in read_rows(tmp_path / "rows.csv")}
    assert set(found) == {"plain", "packed", "op:reference"}
    why = "RuntimeError: needs another machine"
    assert (found[broken].left_out, found[broken].median_us) == (why, None)
    assert benchmark.extra_info[broken] == {"left_out": why}
    assert found["op:reference"].median_us is not None
    assert (found["op:reference"].speedup is None) == (broken == "plain")


def test_a_case_with_our_kernel_broken_fails(breaks: Callable[[str], None], tmp_path: Path) -> None:
    breaks("op:reference")
    with pytest.raises(RuntimeError, match="another machine"):
        test_cpu.time_case(Benchmark(), Recorder(tmp_path / "rows.csv"), SMALL)


def test_rows_of_steps_and_of_the_catalogue(tmp_path: Path) -> None:
    race = enter({"plain": raising(MemoryError("5 GB")), "op": works}, rounds=1, longest=10.0)
    turns(race, 2)
    steps, items = Recorder(tmp_path / "a.csv"), Recorder(tmp_path / "b.csv", kind=CatalogueRow)
    parts = {"op": [{"encoder": 1.0}, {"encoder": 2.0}]}
    rows = steps.record_steps("spt-x", 8, race, parts)
    assert [(row.passes, row.speedup) for row in rows["op"]] == [("step", None), ("encoder", None)]
    assert [(row.passes, row.left_out) for row in rows["plain"]] == [("step", "MemoryError: 5 GB")]
    found = items.record_catalogue(catalogue.QUICK[0], race)
    assert found["plain"].left_out == "MemoryError: 5 GB"
    items.record_catalogue_memory({("plain", 300): "ended with status -9", ("op:cpu", 300): 5})
    items.record_rpt("rpt_step", {"op": [1.0, 2.0]}, 8, {"plain": "no room"})
    items.record_rpt_memory({"plain": "no room", "op": 5}, 8)
    assert sum(row.left_out is not None for row in read_rows(tmp_path / "b.csv", CatalogueRow)) == 4
    assert len(items.rows) == 8


WHY = "RuntimeError: bf16 path needs avx512bw"
MISSING = [
    row("2026-01-02", "main", "plain", precision="bf16", left_out="one call takes 6.1 s"),
    row("2026-01-02", "main", "packed", precision="bf16", left_out=WHY),
    timed("2026-01-02", "main", "op:cpu", 20.0, precision="bf16"),
    row("2026-01-02", "width-256", "plain", left_out="MemoryError: no message"),
    timed("2026-01-02", "width-256", "op:cpu", 20.0),
    row("2026-01-02", "spt-x", "plain", passes="step", left_out="MemoryError: no message"),
    timed("2026-01-02", "spt-x", "op", 20.0, passes="step"),
]


def test_the_page_has_a_dash_and_the_reason() -> None:
    text = section([*ROWS, *MISSING], "cpu", "page")
    assert "| forward | bf16 | 1 | packed | - | - | - | - | - | - |" in text
    assert "| width-256 | forward | 3,000 | op:cpu | - | 20.0 ms |" in text
    assert "| spt-x | plain | - | - | - | - | - | - | - | - |" in text
    assert f"- `packed` in main forward bf16 1 thread: {WHY}" in text
    assert (
        "- `plain` in width-256 forward fp32 1 thread, spt-x step fp32 1 thread: MemoryError"
        in text
    )
    assert "Left out" not in section(ROWS, "cpu", "page")


def test_the_table_of_a_run_says_why() -> None:
    lines = run_table([*ROWS, *MISSING]).splitlines()
    assert len(lines) == 1 + len(ROWS) + len(MISSING)
    assert any("packed" in line and line.endswith(WHY) for line in lines)
    assert any("150 GFLOP/s" in line for line in lines)
    assert any("1.0 MB" in line for line in lines)


def test_a_quick_run_has_one_case_of_each_kind() -> None:
    quick = cases.timed_cases("quick")
    assert {case.passes for case in quick} == {"forward", "forward+backward"}
    assert {case.precision for case in quick} == {"fp32", "bf16"}
    assert any("compiled" in case.baselines for case in quick)
    assert any(case.batch == 1 for case in quick)
    ops = {case.op for case in catalogue.timed_cases("quick")}
    assert {"cross_entropy", "top_k"} <= ops
    everything = {cases.Case(**{**vars(case), "baselines": ()}).shape for case in cases.ALL_TIMED}
    assert {case.shape for case in quick} <= everything


def test_a_default_run_drops_no_kind_of_case() -> None:
    def kinds(chosen: list[cases.Case]) -> set[tuple[str, str]]:
        names = {(case.name.split("-")[0], case.passes) for case in chosen}
        precisions = {(case.precision, case.passes) for case in chosen}
        threads = {(f"{case.threads} threads", case.passes) for case in chosen}
        lengths = {(case.lengths, case.passes) for case in chosen}
        peers = {(name, case.passes) for case in chosen for name in case.baselines}
        return names | precisions | threads | lengths | peers

    assert kinds(cases.timed_cases("default")) == kinds(cases.timed_cases("full"))
    known = {case.name for case in cases.ALL_TIMED}
    assert set(cases.ONLY_FULL) <= known, "a name that no case has leaves nothing out"
    default, full = (catalogue.timed_cases(name) for name in ("default", "full"))
    for value in ("op", "precision", "threads", "n_items"):
        assert {getattr(case, value) for case in default} == {getattr(case, value) for case in full}


def test_what_the_environment_asks_for() -> None:
    assert effort_of({}) is effort_of({"LARES_BENCH_QUICK": "0"}) is DEFAULT
    assert effort_of({"LARES_BENCH_QUICK": "1"}) is QUICK
    assert effort_of({"LARES_BENCH_FULL": "1"}) is FULL
    with pytest.raises(ValueError, match="exclude"):
        effort_of({"LARES_BENCH_QUICK": "1", "LARES_BENCH_FULL": "1"})


def test_a_run_ends_with_its_table(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "rows.csv")
    made.record_race(SMALL, enter({"plain": raising(MemoryError("5 GB"))}, 1, 10.0))
    written: list[str] = []
    reporter = SimpleNamespace(section=written.append, write_line=written.append)
    conftest.pytest_terminal_summary(reporter, SimpleNamespace(stash={conftest.RECORDERS: [made]}))
    assert written == [f"rows in {tmp_path / 'rows.csv'}", run_table(made.rows)]
    assert written[1].endswith("MemoryError: 5 GB")
