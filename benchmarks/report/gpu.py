"""Rows of a GPU as text: tables, what was met of the goals, plots where matplotlib is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.gpu_goals import verdicts
from benchmarks.report.results import GpuRow
from benchmarks.report.tables import (
    gflops_text,
    is_step,
    markdown_table,
    origin_text,
    quartiles_text,
    speedup_text,
    step_table,
    time_text,
)

HOW = """\
Each case was timed in turns in one run, after every implementation was held to float64 (what differs
has no row). `device` is the median between two events on the card, the host having run ahead; `wall` is
from an idle card to the result on the clock, `host` the part of it until the call returned. `x first`
is the time of the case's first implementation over this one's on the device, median over the rounds.
`floor` is what the card's own measured speed allows: products of real tokens at the rate of a large
matrix product, or the bytes that must pass through memory at the rate of a copy, whichever takes
longer; `of floor` is how far a row is from it. `explicit` is padded eager PyTorch with attention
written out, `plain` the same with `scaled_dot_product_attention`, `step-...` plain with its step under
`torch.compile`, `whole-reduced` all of it with `mode="reduce-overhead"`, `varlen` packed rows with
PyTorch's variable-length attention, `op:triton:resident` and `:streamed` the op with forward's weights
kept in shared memory or read again by every layer; `+graph` replays the whole call as one CUDA graph.
Dropout is .5 in both passes together and 0 in forward alone unless the case says otherwise. Rows:
`benchmarks/results/gpu.csv`."""
STEPS = """\
A whole step of self-supervised pre-training: 1,024 samples in three encodings, every depth 4, dropout
.5, on data with the sizes and lengths of Amazon Beauty's. Only the encoder differs; the clock waits for
the card between the parts:"""
_CARD_CASES = ("peak", "bandwidth", "launch", "first-call")


def card_text(rows: Sequence[GpuRow]) -> str:
    """The card's own speed in a sentence."""
    parts = [
        f"{row.precision} products {1e-3 * (row.gflops or 0.0):.0f} TFLOP/s"
        for row in rows
        if row.case == "peak"
    ]
    parts += [f"copy {row.gbytes:,.0f} GB/s" for row in rows if row.case == "bandwidth"]
    parts += [
        f"an operation on one number {row.wall_us:.0f} us on the clock"
        for row in rows
        if row.case == "launch"
    ]
    parts += [
        f"the first call of a fresh process ({row.implementation}) {1e-6 * (row.wall_us or 0.0):.2f} s"
        for row in rows
        if row.case == "first-call"
    ]
    return f"Measured on this card: {', '.join(parts)}." if parts else ""


def is_case(row: GpuRow) -> bool:
    return not (is_step(row) or row.case in _CARD_CASES)


def case_table(rows: Sequence[GpuRow]) -> str:
    """Every timed row, in the order in which they were measured."""
    header = ["case", "pass", "precision", "dropout", "what ran", "device", "quartiles"]
    lines = [
        [
            *(row.case, str(row.passes), row.precision, f"{row.dropout:g}", row.implementation),
            *(time_text(row.median_us), quartiles_text(row), speedup_text(row)),
            *(time_text(row.wall_us), time_text(row.host_us), gflops_text(row)),
            *(time_text(row.floor_us), of_floor(row)),
        ]
        for row in rows
        if is_case(row)
    ]
    columns = [*header, "x first", "wall", "host", "GFLOP/s", "floor", "of floor"]
    return markdown_table(columns, lines, text_columns=5)


def of_floor(row: GpuRow) -> str:
    """How many times its floor a row took."""
    if not row.floor_us or row.median_us is None:
        return ""
    return f"{row.median_us / row.floor_us:.1f} x"


def section(rows: Sequence[GpuRow], plots_folder: str, plots: Sequence[str]) -> str:
    """The part of a page about one card, without markers; ``plots`` are the files that were drawn."""
    parts = [
        "## Measured on a GPU",
        origin_text(rows),
        card_text(rows),
        "Goals, set for an H200 in bf16:",
        "\n".join(f"- {verdict}" for verdict in verdicts(rows)),
        HOW,
        case_table(rows),
        *(f"![{name.removesuffix('.png')}]({plots_folder}/{name})" for name in plots),
    ]
    for precision in dict.fromkeys(row.precision for row in rows if is_step(row)):
        chosen = [row for row in rows if is_step(row) and row.precision == precision]
        parts += [f"{STEPS[:-1]} (products in {precision}):", step_table(chosen)]
    return "\n\n".join(part for part in parts if part)


def draw(rows: Sequence[GpuRow], folder: Path) -> list[str]:
    """Draw the plots that the rows are enough for; their file names, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from benchmarks.report.gpu_plots import PLOTS

    return [name for name, plot in PLOTS.items() if plot(rows, folder / name)]


def write_report(rows: Sequence[GpuRow], out: Path) -> str:
    """Write ``out``/report.md and the plots beside it; says what was written."""
    if not rows:
        return "no rows, no report"
    plots = draw(rows, out)
    (out / "report.md").write_text(section(rows, ".", plots) + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is None:
        drawn = "no plots: matplotlib is not installed"
    else:
        drawn = f"plots {', '.join(plots) or 'none: too few rows'}"
    return f"{out / 'report.md'}: {len(rows)} rows; {drawn}"
