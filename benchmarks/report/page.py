"""``python -m benchmarks.report`` updates docs/results/performance.md from the results file.

It takes the newest run of each case on one machine, writes the tables between two marker comments of
the page (at its end where there are none), and draws the plots into the folder named like the page.
Rows of the catalogue ops and of a card, where there are any, go between markers of their own. The page
of plots beside it (plots.md), where there is one, shows those of the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core.settings import CATALOGUE_PUBLISHED, GPU_PUBLISHED, PUBLISHED, ROOT
from benchmarks.report.markdown import filled, with_section
from benchmarks.report.results import AnyRow, CatalogueRow, GpuRow, Row, newest_rows, read_rows
from benchmarks.report.sections import draw, section
from benchmarks.report.tables import origin_text

PAGE = ROOT / "docs" / "results" / "performance.md"


def markers(page: str) -> tuple[str, str]:
    """The comments between which a part stands: ``benchmarks`` and, but for the CPU's, its name."""
    name = "benchmarks" if page == "cpu" else f"benchmarks-{page}"
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def rows_of_machine(rows: Sequence[AnyRow], machine: str | None = None) -> list[AnyRow]:
    """The newest row of each case on ``machine``, by default the one that ran last.

    Raises:
        ValueError: there are no such rows.
    """
    if machine is None:
        machine = max(rows, key=lambda row: row.date).machine if rows else None
    chosen = [row for row in newest_rows(rows) if row.machine == machine]
    if not chosen:
        known = sorted({row.machine for row in rows})
        raise ValueError(f"no rows of machine {machine!r}; there are {known}")
    return chosen


def update_plots(page: Path, rows: Sequence[Row], folder: str) -> None:
    """Say on the page of plots, where there is one, which rows they are drawn of."""
    if page.exists():
        text = filled("plots", {"origin": origin_text(rows), "folder": folder})
        page.write_text(
            with_section(page.read_text(encoding="utf-8"), text, *markers("cpu")), encoding="utf-8"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=PUBLISHED, help="CSV file of rows")
    parser.add_argument(
        "--catalogue-results", type=Path, default=CATALOGUE_PUBLISHED, help="of the catalogue ops"
    )
    parser.add_argument("--gpu-results", type=Path, default=GPU_PUBLISHED, help="the same of a GPU")
    parser.add_argument("--gpu", help="card as its rows name it; default: the one that ran last")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to update")
    parser.add_argument("--machine", help="as the rows name it; default: the one that ran last")
    given = parser.parse_args(arguments)

    folder = given.page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    text = given.page.read_text(encoding="utf-8") if given.page.exists() else ""
    parts: dict[str, tuple[Path, type[Row], str | None]] = {
        "cpu": (given.results, Row, given.machine),
        "catalogue": (given.catalogue_results, CatalogueRow, given.machine),
        "gpu": (given.gpu_results, GpuRow, given.gpu),
    }
    for page, (file, kind, machine) in parts.items():
        if page == "cpu" or file.exists():
            rows = rows_of_machine(read_rows(file, kind), machine)
            plots = draw(rows, page, folder)
            text = with_section(text, section(rows, page, folder.name, plots), *markers(page))
            print(f"{given.page}: {len(rows)} rows of {file}; {len(plots)} plots in {folder}")
            if page == "cpu" and plots:
                update_plots(given.page.with_name("plots.md"), rows, folder.name)
    given.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
