"""Rows of results as tables: those of the pages, and the one that ends a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.report.results import CatalogueRow, Row

PASSES = ("forward", "forward+backward")
ABSENT = "-"  # of a number that a peer which was left out does not have
STEP_PARTS = ("data", "encoder", "losses", "optimizer")
FREED = {"rpt_step": "kept", "rpt_step:usual": "given back"}  # memory, by case
# What is said of the card's own speed, by case.
OF_CARD: dict[str, Callable[[Any], str]] = {
    "peak": lambda row: f"{row.precision} products {1e-3 * (row.gflops or 0.0):.0f} TFLOP/s",
    "bandwidth": lambda row: f"copy {row.gbytes:,.0f} GB/s",
    "launch": lambda row: f"an operation on one number {row.wall_us:.0f} us on the clock",
    "first-call": lambda row: (
        f"the first call of a fresh process ({row.implementation}) {1e-6 * row.wall_us:.2f} s"
    ),
}


def is_step(row: Row) -> bool:
    return row.case.startswith("spt-") and row.passes == "step"


def is_sweep(row: Row) -> bool:
    return row.case.split("-")[0] in ("avx2", "width", "length", "layers", "steps", "batch")


# Whether a row has a line, by the table's name in a template.
HAS: dict[str, Callable[[Any], bool]] = {
    "main": lambda row: row.case == "main",
    "small": lambda row: row.case.startswith("single") or row.case == "call-overhead",
    "sweep": lambda row: is_sweep(row) and row.implementation.startswith("op:"),
    "steps": is_step,
    "epochs": lambda row: row.passes == "epoch",
    "kept": lambda row: bool(row.bytes_saved and row.tokens and row.steps),
    "times": lambda row: bool(row.passes) and not row.case.startswith(("memory", "rpt_")),
    "memory": lambda row: row.case == "memory" and row.peak_bytes is not None,
    "rpt": lambda row: row.case in FREED,
    "cases": lambda row: not row.case.startswith(("spt-", *OF_CARD)),
}


def lines_of(rows: Sequence[Row], table: str, columns: Sequence[str]) -> list[list[str]]:
    """The cells of a table."""
    cells = cells_of(rows)
    return [[cells[column](row) for column in columns] for row in rows if HAS[table](row)]


def cells_of(rows: Sequence[Row]) -> dict[str, Callable[[Any], str]]:
    """What stands in a row's cell, by column; some cells are about other rows beside it in ``rows``."""
    key = ("case", "passes", "precision", "threads", "implementation")
    known = {tuple(getattr(row, name) for name in key): row for row in rows}
    weighed: Any = [row for row in rows if row.case == "rpt_memory" and row.left_out is None]
    taken = {row.implementation: row.peak_bytes / 1e6 for row in weighed}
    peaks = peaks_of(rows)

    def beside(row: Row, column: str, **others: str) -> Any:
        found = known.get(tuple(others.get(name, getattr(row, name)) for name in key))
        return found and getattr(found, column)

    def part(name: str) -> Callable[[Row], str]:
        return lambda row: number(beside(row, "median_us", passes=name), time_text)

    def ratio_in_fp32(row: Row) -> float | None:
        plain = beside(row, "median_us", implementation="plain", precision="fp32")
        return plain and row.median_us and plain / row.median_us

    def of_peak(row: Row) -> float | None:
        """Percent of what the row's threads could reach."""
        peak = peaks.get(row.case, peaks.get(row.precision))
        return peak and row.gflops and 100 * row.gflops / (peak * row.threads)

    return {
        "case": lambda row: row.case,
        "pass": lambda row: str(row.passes),
        "precision": lambda row: row.precision,
        "threads": lambda row: str(row.threads),
        "dropout": lambda row: f"{row.dropout:g}",
        "steps": lambda row: str(row.steps),
        "tokens": lambda row: f"{row.tokens:,}",
        "items": lambda row: f"{row.n_items:,}",
        "what ran": lambda row: row.implementation,
        "median": lambda row: number(row.median_us, time_text),
        "quartiles": lambda row: number(
            row.q1_us, lambda q1: f"{time_text(q1)} .. {time_text(row.q3_us)}"
        ),
        "x plain": lambda row: number(row.speedup, "{:.2f}".format),
        "plain": lambda row: number(beside(row, "median_us", implementation="plain"), time_text),
        "x plain in fp32": lambda row: number(ratio_in_fp32(row), "{:.2f}".format),
        "GFLOP/s": lambda row: number(row.gflops, _three),
        "of peak": lambda row: number(of_peak(row), "{:.1f} %".format),
        **{name: part(name) for name in STEP_PARTS},
        "samples a second": lambda row: number(
            row.median_us and 1e6 * row.batch / row.median_us, "{:,.0f}".format
        ),
        "encoder x plain": lambda row: number(
            beside(row, "speedup", passes="encoder"), "{:.2f}".format
        ),
        "MiB kept": lambda row: _three(row.bytes_saved / 2**20),
        "bytes a token and step": lambda row: f"{row.bytes_saved / (row.tokens * row.steps):,.0f}",
        "memory": lambda row: f"{row.peak_bytes / 1e6:,.1f} MB",
        "freed memory": lambda row: FREED[row.case],
        "memory taken": lambda row: number(taken.get(row.implementation), "{:,.0f} MB".format),
        "wall": lambda row: number(row.wall_us, time_text),
        "host": lambda row: number(row.host_us, time_text),
        "floor": lambda row: number(row.floor_us, time_text),
        "of floor": lambda row: number(
            row.floor_us and row.median_us / row.floor_us, "{:.1f} x".format
        ),
    }


def number(value: float | None, form: Callable[[float], str]) -> str:
    """A number in words, where there is one."""
    return ABSENT if value is None else form(value)


def origin_text(rows: Sequence[Row]) -> str:
    """On what machine, with what programs and of which revisions rows were measured."""
    newest = max(rows, key=lambda row: row.date)
    runs = sorted({f"{row.revision} of {row.date[:10]}" for row in rows})
    return (
        f"{newest.machine}; Python {newest.python}, torch {newest.torch}; revision "
        f"{', '.join(runs)}."
    )


def time_text(microseconds: float) -> str:
    """``123 us`` or ``12.3 ms``."""
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{_three(microseconds / 1000)} ms"


def _three(value: float) -> str:
    """Three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def left_out_text(rows: Iterable[Row]) -> str:
    """A list of the peers that were left out, with the cases and the reason; empty where none was."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.left_out:
            cases.setdefault((row.implementation, row.left_out), []).append(race_text(row))
    lines = [f"- `{name}` in {', '.join(found)}: {why}" for (name, why), found in cases.items()]
    return "\n".join(["Left out on this machine:\n", *lines]) if lines else ""


def race_text(row: Row) -> str:
    """What a row has in common with the others of its race."""
    threads = f"{row.threads} thread{'' if row.threads == 1 else 's'}"
    items = f"{row.n_items:,} items" if isinstance(row, CatalogueRow) and row.n_items else ""
    parts = (row.case, items, row.passes, row.precision, threads)
    return " ".join(part for part in parts if part)


def run_table(rows: Iterable[Row]) -> str:
    """Everything that a run found, a line for each row, columns aligned for a terminal."""
    lines = [(race_text(row), row.implementation, *_found(row)) for row in rows]
    header = ("case", "what ran", "found", "x plain", "why not")
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header) - 1)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[-1]]
        ).rstrip()
        for line in (header, *lines)
    )


def _found(row: Row) -> tuple[str, str, str]:
    """The number that a row is about, its ratio to plain's, and why there is none."""
    peak = row.peak_bytes if isinstance(row, CatalogueRow) else None
    taken = peak if row.bytes_saved is None else row.bytes_saved
    if row.left_out:
        return ABSENT, ABSENT, row.left_out
    if row.median_us is not None:
        return time_text(row.median_us), number(row.speedup, "{:.2f}".format), ""
    if taken is not None:
        return f"{taken / 1e6:,.1f} MB", "", ""
    return f"{number(row.gflops, _three)} GFLOP/s", "", ""


def peaks_of(rows: Iterable[Row]) -> dict[str, float]:
    """GFLOP/s of one thread where it was measured: by precision, or by name of an instruction set."""
    peaks = {}
    for row in rows:
        name, _, instruction_set = row.case.partition(":")
        if name == "peak" and row.gflops:
            peaks[instruction_set or row.precision] = row.gflops
    return peaks
