"""The catalogue ops' rows as the section of docs/results/performance.md."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.results import CatalogueRow
from benchmarks.report.tables import (
    ABSENT,
    gflops_text,
    left_out_text,
    markdown_table,
    median_text,
    origin_text,
    peak_text,
    peaks_of,
    quartiles_text,
    speedup_text,
)

HOW = """\
1,024 rows of width 64 against a catalogue, `plain` with the matrix of scores (`queries @ items.T`,
then cross entropy and its gradients, a comparison and a sum, or `topk`), in turns in one run, after
both were held to float64; `top_k` takes ten. GFLOP counts three products with the table for cross
entropy and its gradients (the op does a fourth, to recompute scores), one for the others. Rows:
`benchmarks/results/catalogue.csv`; `pytest benchmarks/test_catalogue.py --benchmark-only`."""
MEMORY = """\
Resident memory at the peak of cross entropy and its gradients, beside the table and the table's
gradient, each in a process of its own:"""

RPT = """\
A whole step of reinforcement post-training (fp32, one thread): {} samples with the lengths of Amazon
Beauty's, four rollouts of 2, 4, 8 and 12 steps, 24,588 items, the published model, reference and Adam
included. `plain` encodes each rollout in padded eager PyTorch and keeps the log-probabilities of all
items after every step. Freed memory is kept for later calls, as for all rows of this page, or given
back to the system, as in a usual process: plain allocates gigabytes a step, which then come anew page
by page. Memory taken is resident at the step's peak beside models, gradients and Adam's moments.
`pytest benchmarks/test_rpt.py --benchmark-only`:"""


def time_table(rows: Sequence[CatalogueRow]) -> str:
    peaks = peaks_of(rows)
    header = ["op", "items", "precision", "threads", "what ran", "median", "quartiles", "x plain"]
    lines = [
        [
            *(row.case, f"{row.n_items:,}", row.precision, str(row.threads), row.implementation),
            *(median_text(row), quartiles_text(row), speedup_text(row)),
            *(gflops_text(row), peak_text(row, peaks)),
        ]
        for row in rows
        if row.passes and not row.case.startswith(("memory", "rpt_"))
    ]
    return markdown_table([*header, "GFLOP/s", "of peak"], lines, text_columns=1)


def memory_table(rows: Sequence[CatalogueRow]) -> str:
    lines = [
        [row.implementation, f"{row.n_items:,}", f"{row.peak_bytes / 1e6:,.1f} MB"]
        for row in rows
        if row.case == "memory" and row.peak_bytes is not None
    ]
    return markdown_table(["what ran", "items", "memory"], lines, text_columns=1)


def rpt_table(rows: Sequence[CatalogueRow]) -> str:
    """Time and memory of a step, a line for each program."""
    taken = {row.implementation: row.peak_bytes for row in rows if row.case == "rpt_memory"}
    kept = {"rpt_step": "kept", "rpt_step:usual": "given back"}
    lines = []
    for row in rows:
        if row.case in kept:
            memory = taken.get(row.implementation)
            lines.append(
                [
                    *(row.implementation, kept[row.case]),
                    *(median_text(row), quartiles_text(row), speedup_text(row)),
                    ABSENT if memory is None else f"{memory / 1e6:,.0f} MB",
                ]
            )
    header = ["what ran", "freed memory", "median", "quartiles", "x plain", "memory taken"]
    return markdown_table(header, lines, text_columns=2)


def section(rows: Sequence[CatalogueRow]) -> str:
    """The measured part, without its markers."""
    parts = [
        "## The catalogue on the CPU",
        origin_text(rows),
        HOW,
        time_table(rows),
    ]
    if any(row.peak_bytes is not None for row in rows):
        parts += [MEMORY, memory_table(rows)]
    if any(row.case == "rpt_step" for row in rows):
        samples = sorted({row.batch for row in rows if row.case.startswith("rpt_") and row.batch})
        parts += [RPT.format(" or ".join(map(str, samples))), rpt_table(rows)]
    parts += [text for text in [left_out_text(rows)] if text]
    return "\n\n".join(parts)
