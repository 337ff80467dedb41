"""Rows of results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.report.results import CatalogueRow, Row

PASSES = ("forward", "forward+backward")


def origin_text(rows: Sequence[Row]) -> str:
    """On what machine, with what programs and of which revisions rows were measured."""
    newest = max(rows, key=lambda row: row.date)
    runs = sorted({f"{row.revision} of {row.date[:10]}" for row in rows})
    return (
        f"{newest.machine}; Python {newest.python}, torch {newest.torch}; revision "
        f"{', '.join(runs)}."
    )


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int) -> str:
    """A table whose first ``text_columns`` columns stand left and whose others stand right."""
    ruler = ["---" if i < text_columns else "--:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *lines))


ABSENT = "-"  # of a number that a peer which was left out does not have


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


def main_table(rows: Sequence[Row], peaks: dict[str, float]) -> str:
    """The main case, every implementation."""
    header = ["pass", "precision", "threads", "what ran", "median", "quartiles", "x plain"]
    main = [row for row in rows if row.case == "main"]
    single = _plain_in_fp32(main)
    lines = [
        [
            *(str(row.passes), row.precision, str(row.threads), row.implementation),
            *(median_text(row), quartiles_text(row), speedup_text(row)),
            _ratio_text(single.get(_race_of(row)), row.median_us),
            *(gflops_text(row), peak_text(row, peaks)),
        ]
        for row in main
    ]
    header += ["x plain in fp32", "GFLOP/s", "of peak"]
    return markdown_table(header, lines, text_columns=4)


def _race_of(row: Row) -> tuple[str, str | None, int]:
    """What a row shares with the others of its shape, whatever the precision."""
    return row.case, row.passes, row.threads


def _plain_in_fp32(rows: Sequence[Row]) -> dict[tuple[str, str | None, int], float | None]:
    """Microseconds of plain PyTorch in float32 beside each row."""
    return {
        _race_of(row): row.median_us
        for row in rows
        if row.implementation == "plain" and row.precision == "fp32"
    }


def _ratio_text(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f}" if one and other else ABSENT


def small_table(rows: Sequence[Row]) -> str:
    """One sequence, and a call with next to no work."""
    header = ["case", "pass", "precision", "what ran", "median", "quartiles", "x plain"]
    small = [row for row in rows if row.case.startswith("single") or row.case == "call-overhead"]
    single = _plain_in_fp32(small)
    lines = [
        [
            *(row.case, str(row.passes), row.precision, row.implementation),
            *(median_text(row), quartiles_text(row), speedup_text(row)),
            _ratio_text(single.get(_race_of(row)), row.median_us),
        ]
        for row in small
    ]
    return markdown_table([*header, "x plain in fp32"], lines, text_columns=4)


def is_sweep(row: Row) -> bool:
    return row.case.split("-")[0] in ("avx2", "width", "length", "layers", "steps", "batch")


def sweep_table(rows: Sequence[Row], peaks: dict[str, float]) -> str:
    """Everything that differs from the main case in one value: the op, and plain beside it."""
    plain = {(row.case, row.passes): row for row in rows if row.implementation == "plain"}
    header = ["case", "pass", "tokens", "op", "plain", "op's median", "x plain"]
    lines = [
        [
            *(row.case, str(row.passes), f"{row.tokens:,}", row.implementation),
            *(median_text(plain.get((row.case, row.passes))), median_text(row)),
            *(speedup_text(row), gflops_text(row), peak_text(row, peaks)),
        ]
        for row in rows
        if is_sweep(row) and row.implementation.startswith("op:")
    ]
    return markdown_table([*header, "GFLOP/s", "of peak"], lines, text_columns=2)


STEP_PARTS = ("data", "encoder", "losses", "optimizer", "step")


def is_step(row: Row) -> bool:
    return row.case.startswith("spt-")


def step_table(rows: Sequence[Row]) -> str:
    """Training steps: what their parts take, and how many times as long plain's took."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if is_step(row):
            found.setdefault((row.case, row.implementation), {})[str(row.passes)] = row
    lines = []
    for (case, name), parts in found.items():
        whole = parts["step"]
        seconds = 1e-6 * (whole.median_us or 0.0)
        pace = f"{(whole.batch or 0) / seconds:,.0f}" if seconds else ABSENT
        times = [median_text(parts.get(part)) for part in STEP_PARTS]
        ratios = [speedup_text(parts.get(part)) for part in ("encoder", "step")]
        lines.append([case, name, *times, pace, *ratios])
    header = ["case", "encoder", *STEP_PARTS, "samples a second", "encoder x plain", "step x plain"]
    return markdown_table(header, lines, text_columns=2)


def is_epoch(row: Row) -> bool:
    return row.passes == "epoch"


def epoch_table(rows: Sequence[Row]) -> str:
    """Whole epochs, and how many times as long the first program's took."""
    lines = [
        [
            *(row.case, row.implementation, median_text(row), quartiles_text(row)),
            speedup_text(row),
        ]
        for row in rows
        if is_epoch(row)
    ]
    header = ["case", "what ran", "median", "quartiles", "x RecBole"]
    return markdown_table(header, lines, text_columns=2)


def memory_table(rows: Sequence[Row]) -> str:
    """What is kept for the backward pass."""
    header = ["what ran", "steps", "tokens", "MiB kept", "bytes a token and step"]
    lines = [
        [
            *(row.implementation, str(row.steps), f"{row.tokens:,}"),
            _three(row.bytes_saved / 2**20),
            f"{row.bytes_saved / (row.tokens * row.steps):,.0f}",
        ]
        for row in rows
        if row.bytes_saved and row.tokens and row.steps
    ]
    return markdown_table(header, lines, text_columns=1)
