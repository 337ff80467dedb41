"""Rows of results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.results import Row

PASSES = ("forward", "forward+backward")


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int) -> str:
    """A table whose first ``text_columns`` columns stand left and whose others stand right."""
    ruler = ["---" if i < text_columns else "--:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *lines))


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


def quartiles_text(row: Row) -> str:
    return f"{time_text(row.q1_us)} .. {time_text(row.q3_us)}"


def speedup_text(row: Row) -> str:
    return "" if row.speedup is None else f"{row.speedup:.2f}"


def gflops_text(row: Row) -> str:
    return "" if row.gflops is None else _three(row.gflops)


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
        return ""
    return f"{100 * row.gflops / (peak * row.threads):.1f} %"


def main_table(rows: Sequence[Row], peaks: dict[str, float]) -> str:
    """The main case, every implementation."""
    header = ["pass", "precision", "threads", "what ran", "median", "quartiles", "x plain"]
    main = [row for row in rows if row.case == "main"]
    single = _plain_in_fp32(main)
    lines = [
        [
            *(str(row.passes), row.precision, str(row.threads), row.implementation),
            *(time_text(row.median_us), quartiles_text(row), speedup_text(row)),
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
    return f"{one / other:.2f}" if one and other else ""


def small_table(rows: Sequence[Row]) -> str:
    """One sequence, and a call with next to no work."""
    header = ["case", "pass", "precision", "what ran", "median", "quartiles", "x plain"]
    small = [row for row in rows if row.case.startswith("single") or row.case == "call-overhead"]
    single = _plain_in_fp32(small)
    lines = [
        [
            *(row.case, str(row.passes), row.precision, row.implementation),
            *(time_text(row.median_us), quartiles_text(row), speedup_text(row)),
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
            *(time_text(plain[row.case, row.passes].median_us), time_text(row.median_us)),
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
        pace = (whole.batch or 0) / (1e-6 * (whole.median_us or 1.0))
        times = [time_text(parts[part].median_us) for part in STEP_PARTS]
        ratios = [speedup_text(parts[part]) for part in ("encoder", "step")]
        lines.append([case, name, *times, f"{pace:,.0f}", *ratios])
    header = ["case", "encoder", *STEP_PARTS, "samples a second", "encoder x plain", "step x plain"]
    return markdown_table(header, lines, text_columns=2)


def is_epoch(row: Row) -> bool:
    return row.passes == "epoch"


def epoch_table(rows: Sequence[Row]) -> str:
    """Whole epochs, and how many times as long the first program's took."""
    lines = [
        [
            *(row.case, row.implementation, time_text(row.median_us), quartiles_text(row)),
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
