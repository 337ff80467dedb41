"""From rows of results to the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.report.markdown import with_section
from benchmarks.report.page import main, markers, rows_of_machine
from benchmarks.report.plots import like_main
from benchmarks.report.results import COLUMNS, Row, append_rows, newest_rows, read_rows
from benchmarks.report.sections import section

BEGIN, END = markers("cpu")
RUN = {"revision": "abc", "machine": "m", "python": "3", "torch": "2", "threads": 1}
SHAPE = {"d_model": 64, "n_heads": 2, "d_ff": 256, "n_layers": 2, "max_length": 20}


def row(date: str, case: str, implementation: str, **values: object) -> Row:
    given = {**RUN, **SHAPE, "steps": 4, "batch": 512, "lengths": "prefixes", "tokens": 3000}
    given |= {"precision": "fp32", "passes": "forward", "dropout": 0.0, **values}
    return Row(date=date, case=case, implementation=implementation, **given)  # type: ignore[arg-type]


def timed(date: str, case: str, implementation: str, milliseconds: float, **values: object) -> Row:
    return row(
        date,
        case,
        implementation,
        **dict.fromkeys(("median_us", "q1_us", "q3_us"), 1000 * milliseconds),
        gflop=3.0,
        gflops=3000.0 / milliseconds,
        speedup=100.0 / milliseconds,
        rounds=5,
        **values,
    )


ROWS = [
    timed("2026-01-01", "main", "op:cpu", 50.0),
    Row(**RUN, date="2026-01-02", case="peak", implementation="p", precision="fp32", gflops=150.0),
    timed("2026-01-02", "main", "plain", 100.0),
    timed("2026-01-02", "main", "op:cpu", 25.0),
    timed("2026-01-02", "steps-8", "plain", 200.0, steps=8),
    timed("2026-01-02", "steps-8", "op:cpu", 50.0, steps=8),
    timed("2026-01-02", "call-overhead", "op:cpu", 0.02),
    row("2026-01-02", "memory", "op:cpu", bytes_saved=2**20),
]


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    append_rows(path, ROWS[:3])
    append_rows(path, ROWS[3:])
    assert read_rows(path) == ROWS
    assert path.read_text().count(COLUMNS[0]) == 1


def test_curves_leave_out_the_kernel_on_another_instruction_set() -> None:
    assert like_main(timed("2026-01-02", "main", "op:cpu", 25.0), "steps")
    assert not like_main(timed("2026-01-02", "avx2", "op:cpu", 40.0), "steps")


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("date,other\n")
    with pytest.raises(ValueError, match="has columns"):
        append_rows(path, ROWS)
    assert path.read_text() == "date,other\n"


def test_only_the_newest_run_of_a_case_counts() -> None:
    assert newest_rows(ROWS) == ROWS[1:]
    elsewhere = timed("2026-01-03", "main", "plain", 9.0, machine="other")
    assert rows_of_machine([*ROWS, elsewhere]) == [elsewhere]
    assert rows_of_machine([*ROWS, elsewhere], "m") == ROWS[1:]
    with pytest.raises(ValueError, match="no rows of machine 'x'"):
        rows_of_machine(ROWS, "x")


def test_the_section_is_added_then_replaced() -> None:
    once = with_section("# Page\n\ntext\n", "first", BEGIN, END)
    assert once == f"# Page\n\ntext\n\n{BEGIN}\n\nfirst\n\n{END}\n"
    twice = with_section(once + "\nafter\n", "second", BEGIN, END)
    assert twice == once.replace("first", "second") + "\nafter\n"
    with pytest.raises(ValueError, match="once each"):
        with_section(f"{END} {BEGIN}", "text", BEGIN, END)


def test_a_part_without_rows_is_left_out() -> None:
    text = section(ROWS, "cpu", "page")
    assert "One sequence of 8 or 20 items" in text
    assert "RecBole" not in text
    assert section([ROWS[1]], "cpu", "page").count("|") == 0, "a peak alone fills no table"


def test_a_header_may_stand_for_another_column() -> None:
    text = section(ROWS, "cpu", "page")
    assert (
        "| case | pass | tokens | op | plain | op's median | x plain | GFLOP/s | of peak |" in text
    )
    assert " = " not in text


def test_report(tmp_path: Path) -> None:
    append_rows(tmp_path / "rows.csv", ROWS)
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    main(["--results", str(tmp_path / "rows.csv"), "--page", str(page)])
    text = page.read_text()
    assert (
        "| forward | fp32 | 1 | op:cpu | 25.0 ms | 25.0 ms .. 25.0 ms | 4.00 | 4.00 | 120 | 80.0 % |"
        in text
    )
    assert "| steps-8 | forward | 3,000 | op:cpu | 200 ms | 50.0 ms | 2.00 |" in text
    assert "50.0 ms .. 50.0 ms" not in text, "the older run of the main case"
    for name in ("ratios", "depth", "batch", "length", "width", "threads"):
        for passes in ("forward", "training"):
            assert f"(page/{name}-{passes}.svg)" in text
            assert (tmp_path / "page" / f"{name}-{passes}.svg").stat().st_size > 1000


def test_the_page_of_plots_says_which_rows(tmp_path: Path) -> None:
    append_rows(tmp_path / "rows.csv", ROWS)
    plots = tmp_path / "plots.md"
    plots.write_text("# Plots\n\nby hand\n")
    for _ in range(2):
        main(["--results", str(tmp_path / "rows.csv"), "--page", str(tmp_path / "page.md")])
    text = plots.read_text()
    assert text.startswith("# Plots\n\nby hand\n")
    assert text.count("m; Python 3, torch 2; revision abc of 2026-01-02.") == 1
    for path in re.findall(r"\((page/.+?)\)", text):
        assert (tmp_path / path).exists(), path
