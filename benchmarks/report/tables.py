"""Rows of results as tables: those of the pages, and the one that ends a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.report.markdown import markdown_table
from benchmarks.report.results import CatalogueRow, Row

PASSES = ("forward", "forward+backward")
ABSENT = "-"  # of a number that a peer which was left out does not have
STEP_PARTS = ("data", "encoder", "losses", "optimizer")
CARD_CASES = ("peak", "bandwidth", "launch", "first-call")  # about the card itself
FREED = {"rpt_step": "kept", "rpt_step:usual": "given back"}  # memory, by case


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        columns: headers; :func:`cells_of` tells what stands below each, or below the name after ``=``.
        left: how many of them stand left; the others stand right.
        has: whether a row has a line.
    """

    columns: str
    left: int
    has: Callable[[Any], bool]

    def text(self, rows: Sequence[Row]) -> str:
        """The table; empty where no row has a line."""
        cells, chosen = cells_of(rows), [row for row in rows if self.has(row)]
        columns = [column.split(" = ") for column in self.columns.split(", ")]
        lines = [[cells[names[-1]](row) for names in columns] for row in chosen]
        return markdown_table([names[0] for names in columns], lines, self.left) if lines else ""


def is_step(row: Row) -> bool:
    return row.case.startswith("spt-") and row.passes == "step"


def is_sweep(row: Row) -> bool:
    return row.case.split("-")[0] in ("avx2", "width", "length", "layers", "steps", "batch")


_TIMES = "median, quartiles, x plain"
_STEP = (
    f"{', '.join(STEP_PARTS)}, step = median, samples a second, encoder x plain, "
    "step x plain = x plain"
)
# By page, and by the table's name in its template.
TABLES: dict[str, dict[str, Table]] = {
    "cpu": {
        "main": Table(
            f"pass, precision, threads, what ran, {_TIMES}, x plain in fp32, GFLOP/s, of peak",
            left=4,
            has=lambda row: row.case == "main",
        ),
        "small": Table(
            f"case, pass, precision, what ran, {_TIMES}, x plain in fp32",
            left=4,
            has=lambda row: row.case.startswith("single") or row.case == "call-overhead",
        ),
        "sweep": Table(
            "case, pass, tokens, op = what ran, plain, op's median = median, x plain, GFLOP/s, of peak",
            left=2,
            has=lambda row: is_sweep(row) and row.implementation.startswith("op:"),
        ),
        "steps": Table(f"case, encoder = what ran, {_STEP}", left=2, has=is_step),
        "epochs": Table(
            "case, what ran, median, quartiles, x RecBole = x plain",
            left=2,
            has=lambda row: row.passes == "epoch",
        ),
        "kept": Table(
            "what ran, steps, tokens, MiB kept, bytes a token and step",
            left=1,
            has=lambda row: bool(row.bytes_saved and row.tokens and row.steps),
        ),
    },
    "catalogue": {
        "times": Table(
            f"op = case, items, precision, threads, what ran, {_TIMES}, GFLOP/s, of peak",
            left=1,
            has=lambda row: bool(row.passes) and not row.case.startswith(("memory", "rpt_")),
        ),
        "memory": Table(
            "what ran, items, memory",
            left=1,
            has=lambda row: row.case == "memory" and row.peak_bytes is not None,
        ),
        "rpt": Table(
            f"what ran, freed memory, {_TIMES}, memory taken",
            left=2,
            has=lambda row: row.case in FREED,
        ),
    },
    "gpu": {
        "cases": Table(
            "case, pass, precision, dropout, what ran, device = median, quartiles, x first = x plain, "
            "wall, host, GFLOP/s, floor, of floor",
            left=5,
            has=lambda row: not row.case.startswith(("spt-", *CARD_CASES)),
        ),
        "steps": Table(f"case, encoder = what ran, precision, {_STEP}", left=3, has=is_step),
    },
}


def cells_of(rows: Sequence[Row]) -> dict[str, Callable[[Any], str]]:
    """What stands in a row's cell, by column; some cells are about other rows beside it in ``rows``."""
    key = ("case", "passes", "precision", "threads", "implementation")
    known = {tuple(getattr(row, name) for name in key): row for row in rows}
    taken = {row.implementation: row for row in rows if row.case == "rpt_memory"}
    peaks = peaks_of(rows)

    def beside(row: Row, **others: str) -> Row | None:
        return known.get(tuple(others.get(name, getattr(row, name)) for name in key))

    def part(name: str) -> Callable[[Row], str]:
        return lambda row: median_text(beside(row, passes=name))

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
        "median": median_text,
        "quartiles": quartiles_text,
        "x plain": speedup_text,
        "plain": lambda row: median_text(beside(row, implementation="plain")),
        "x plain in fp32": lambda row: _ratio_text(
            beside(row, implementation="plain", precision="fp32"), row
        ),
        "GFLOP/s": gflops_text,
        "of peak": lambda row: peak_text(row, peaks),
        **{name: part(name) for name in STEP_PARTS},
        "samples a second": lambda row: (
            f"{1e6 * row.batch / row.median_us:,.0f}" if row.median_us else ABSENT
        ),
        "encoder x plain": lambda row: speedup_text(beside(row, passes="encoder")),
        "MiB kept": lambda row: _three(row.bytes_saved / 2**20),
        "bytes a token and step": lambda row: f"{row.bytes_saved / (row.tokens * row.steps):,.0f}",
        "memory": lambda row: f"{row.peak_bytes / 1e6:,.1f} MB",
        "freed memory": lambda row: FREED[row.case],
        "memory taken": lambda row: _megabytes(taken.get(row.implementation)),
        "wall": lambda row: time_text(row.wall_us),
        "host": lambda row: time_text(row.host_us),
        "floor": lambda row: time_text(row.floor_us),
        "of floor": lambda row: (
            f"{row.median_us / row.floor_us:.1f} x" if row.floor_us and row.median_us else ""
        ),
    }


def origin_text(rows: Sequence[Row]) -> str:
    """On what machine, with what programs and of which revisions rows were measured."""
    newest = max(rows, key=lambda row: row.date)
    runs = sorted({f"{row.revision} of {row.date[:10]}" for row in rows})
    return (
        f"{newest.machine}; Python {newest.python}, torch {newest.torch}; revision "
        f"{', '.join(runs)}."
    )


def time_text(microseconds: float | None) -> str:
    """``123 us`` or ``12.3 ms``."""
    if microseconds is None:
        return ""
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{_three(microseconds / 1000)} ms"


def _three(value: float) -> str:
    """Three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def median_text(row: Row | None) -> str:
    return ABSENT if row is None or row.median_us is None else time_text(row.median_us)


def quartiles_text(row: Row) -> str:
    if row.q1_us is None:
        return ABSENT
    return f"{time_text(row.q1_us)} .. {time_text(row.q3_us)}"


def speedup_text(row: Row | None) -> str:
    return ABSENT if row is None or row.speedup is None else f"{row.speedup:.2f}"


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
        return time_text(row.median_us), speedup_text(row), ""
    if taken is not None:
        return f"{taken / 1e6:,.1f} MB", "", ""
    return f"{gflops_text(row)} GFLOP/s", "", ""


def gflops_text(row: Row) -> str:
    return ABSENT if row.gflops is None else _three(row.gflops)


def peaks_of(rows: Iterable[Row]) -> dict[str, float]:
    """GFLOP/s of one thread where it was measured: by precision, or by name of an instruction set."""
    peaks = {}
    for row in rows:
        name, _, instruction_set = row.case.partition(":")
        if name == "peak" and row.gflops:
            peaks[instruction_set or row.precision] = row.gflops
    return peaks


def peak_text(row: Row, peaks: dict[str, float]) -> str:
    """Percent of what the row's threads could reach."""
    peak = peaks.get(row.case, peaks.get(row.precision))
    if row.gflops is None or peak is None:
        return ABSENT
    return f"{100 * row.gflops / (peak * row.threads):.1f} %"


def _ratio_text(other: Row | None, own: Row) -> str:
    if other is None or not other.median_us or not own.median_us:
        return ABSENT
    return f"{other.median_us / own.median_us:.2f}"


def _megabytes(row: Any) -> str:
    return ABSENT if row is None or row.peak_bytes is None else f"{row.peak_bytes / 1e6:,.0f} MB"
