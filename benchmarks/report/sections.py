"""The measured parts of pages: rows, tables and plots in the text of a template."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.report.gpu_goals import verdicts
from benchmarks.report.markdown import filled
from benchmarks.report.results import GpuRow, Row
from benchmarks.report.tables import OF_CARD, left_out_text, lines_of, origin_text, peaks_of


def section(rows: Sequence[Row], page: str, folder: str, plots: Sequence[str] = ()) -> str:
    """The measured part of a page, without its markers.

    Args:
        rows: of one machine.
        page: ``cpu``, ``catalogue`` or ``gpu``.
        folder: where the page finds its plots.
        plots: that were drawn of a GPU's rows.
    """
    peaks = [f"{value:.0f} GFLOP/s in {name}" for name, value in peaks_of(rows).items()]
    samples = {row.batch for row in rows if row.case.startswith("rpt_") and row.batch}
    card = [say(row) for case, say in OF_CARD.items() for row in rows if row.case == case]
    pictures = [f"![{name.removesuffix('.svg')}]({folder}/{name})" for name in plots]
    values = {
        "folder": folder,
        "origin": origin_text(rows),
        "left_out": left_out_text(rows),
        "peaks": ", ".join(peaks),
        "samples": " or ".join(map(str, sorted(samples))),
        "card": ", ".join(card),
        "goals": "\n".join(f"- {verdict}" for verdict in verdicts(rows)),
        "plots": "\n".join(pictures),
    }
    return filled(page, values, partial(lines_of, rows))


def draw(rows: Sequence[Row], page: str, folder: Path) -> list[str]:
    """Draw the plots that rows are enough for; their file names, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from benchmarks.report.palette import save_svg
    from benchmarks.report.plots import figures

    drawn = figures(rows, page)
    for name, figure in drawn.items():
        save_svg(figure, folder / name)
    return list(drawn)


def write_report(rows: Sequence[GpuRow], out: Path) -> str:
    """Write ``out``/report.md about a GPU and the plots beside it; says what was written."""
    if not rows:
        return "no rows, no report"
    plots = draw(rows, "gpu", out)
    text = section(rows, "gpu", ".", plots)
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is None:
        drawn = "no plots: matplotlib is not installed"
    else:
        drawn = f"plots {', '.join(plots) or 'none: too few rows'}"
    return f"{out / 'report.md'}: {len(rows)} rows; {drawn}"
