"""``python -m benchmarks.report`` updates docs/results/performance.md from the results file.

It takes the newest run of each case on one machine, writes the tables between two marker comments of
the page (at its end where there are none), and draws the plots into the folder named like the page.
Rows of the catalogue ops and of a card, where there are any, go between markers of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core.settings import CATALOGUE_PUBLISHED, GPU_PUBLISHED, PUBLISHED, ROOT
from benchmarks.report import catalogue as catalogue_report
from benchmarks.report import gpu as gpu_report
from benchmarks.report.plots import PLOTS
from benchmarks.report.results import AnyRow, CatalogueRow, GpuRow, Row, newest_rows, read_rows
from benchmarks.report.tables import (
    epoch_table,
    is_epoch,
    is_step,
    is_sweep,
    left_out_text,
    main_table,
    memory_table,
    origin_text,
    peaks_of,
    small_table,
    step_table,
    sweep_table,
)

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
GPU_BEGIN, GPU_END = "<!-- benchmarks-gpu:begin -->", "<!-- benchmarks-gpu:end -->"
CATALOGUE_BEGIN = "<!-- benchmarks-catalogue:begin -->"
CATALOGUE_END = "<!-- benchmarks-catalogue:end -->"
PAGE = ROOT / "docs" / "results" / "performance.md"

HOW = """\
Each case was timed in turns (plain, the others, the op, plain again, ...) in one run, after every
implementation was held to the equations in float64. `x plain` is plain's time over this one's, the
median over the rounds; `x plain in fp32` divides the medians of two cases. GFLOP counts the products of
real tokens alone. `plain` is padded eager PyTorch (in bf16 under autocast), `compiled` with its
layer under `torch.compile`, `packed` is packed rows with oneDNN products and weights laid out
beforehand. Forward and backward together run with dropout, forward alone without. Freed memory was
kept in the process, which spares programs that allocate much (plain above all) page faults. Rows:
`benchmarks/results/cpu.csv`."""
MAIN_CASE = """\
The main case: 512 training prefixes of up to 20 items with the lengths of Amazon Beauty's, `d=64`,
2 heads, `f=256`, 2 layers, `T=4`."""
SMALL_CASES = """\
One sequence of 8 or 20 items, and a call with next to no work (one item, `d=8`, one layer, `T=1`):"""
SWEEPS = """\
One value of the main case changed at a time (fp32, one thread; `avx2` is the kernel without AVX-512,
held to the peak of that set). A batch of the length cases has 6,400
places, of which geometric lengths fill about a quarter; the wide ones have 256 (`d=128`) and 64
sequences (`d=256`):"""
STEPS = """\
A whole step of self-supervised pre-training: 1,024 samples in three encodings, every depth 4, dropout
.5, the published model, one thread, on data with the sizes and lengths of the two named. `plain` has
the padded eager encoder and a matrix of scores; the rest is the same program, and Adam over the
catalogue's embeddings costs the same in both. `encoder` and `losses` are forward and backward:"""
EPOCHS = """\
An epoch of self-supervised pre-training (three encodings of 4 to 5 steps on average) beside one of
RecBole 1.2.1's own SASRec (2 layers, cross entropy), each in a process and an environment of its own:
the same samples, window 20, batch 1,024, one thread.
`LARES_RECBOLE_PYTHON=PYTHON pytest benchmarks/test_recbole.py --benchmark-only`, where `PYTHON` has
RecBole:"""
MEMORY = "Kept for the backward pass, beside the parameters and the caller's input:"


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


def section(rows: Sequence[Row], plots_folder: str) -> str:
    """The measured part of the page, without its markers."""
    peaks = peaks_of(rows)
    parts = [
        "## Measured on the CPU",
        origin_text(rows),
    ]
    if peaks:
        values = [f"{value:.0f} GFLOP/s in {name}" for name, value in peaks.items()]
        parts.append(f"Peak of one thread: {', '.join(values)}.")
    parts += [
        HOW,
        MAIN_CASE,
        main_table(rows, peaks),
        _picture("Times as fast as plain PyTorch", plots_folder, "ratios.png"),
        SMALL_CASES,
        small_table(rows),
    ]
    if any(is_sweep(row) for row in rows):
        parts += [
            SWEEPS,
            sweep_table(rows, peaks),
            _picture("Cost against depth", plots_folder, "steps.png"),
            _picture("Cost against batch", plots_folder, "batch.png"),
            _picture("Cost against length", plots_folder, "length.png"),
        ]
    if any(is_step(row) for row in rows):
        parts += [STEPS, step_table(rows)]
    if any(is_epoch(row) for row in rows):
        parts += [EPOCHS, epoch_table(rows)]
    if any(row.bytes_saved for row in rows):
        parts += [MEMORY, memory_table(rows)]
    parts += [text for text in [left_out_text(rows)] if text]
    return "\n\n".join(parts)


def _picture(text: str, folder: str, name: str) -> str:
    return f"![{text}]({folder}/{name})"


def with_section(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """``page`` with ``text`` between the markers, which are added at its end if absent.

    Raises:
        ValueError: the markers do not stand once each, in order.
    """
    block = f"{begin}\n\n{text}\n\n{end}"
    if begin not in page and end not in page:
        return f"{page.rstrip()}\n\n{block}\n"
    if (page.count(begin), page.count(end)) != (1, 1) or page.index(begin) > page.index(end):
        raise ValueError(f"the page must have {begin} and {end} once each, in this order")
    before, rest = page.split(begin)
    return before + block + rest.split(end)[1]


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

    rows = rows_of_machine(read_rows(given.results), given.machine)
    folder = given.page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        draw(rows, folder / name)
    page = given.page.read_text(encoding="utf-8") if given.page.exists() else ""
    page = with_section(page, section(rows, folder.name))
    if given.catalogue_results.exists():
        found = rows_of_machine(read_rows(given.catalogue_results, CatalogueRow), given.machine)
        text = catalogue_report.section(found)
        page = with_section(page, text, CATALOGUE_BEGIN, CATALOGUE_END)
        print(f"{given.page}: {len(found)} rows of the catalogue")
    if given.gpu_results.exists():
        gpu_rows = rows_of_machine(read_rows(given.gpu_results, GpuRow), given.gpu)
        plots = gpu_report.draw(gpu_rows, folder)
        text = gpu_report.section(gpu_rows, folder.name, plots)
        page = with_section(page, text, GPU_BEGIN, GPU_END)
        print(f"{given.page}: {len(gpu_rows)} rows of a GPU")
    given.page.write_text(page, encoding="utf-8")
    print(f"{given.page}: {len(rows)} rows; plots in {folder}")


if __name__ == "__main__":
    main()
