"""Rows of results: one implementation in one case, kept in a CSV file that only grows."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

AnyRow = TypeVar("AnyRow", bound="Row")


@dataclass(frozen=True)
class Row:
    """One measurement. What does not apply is None, an empty cell.

    Attributes:
        date: when the run began, UTC; equal for all rows of a run.
        revision, machine, python, torch: what ran it.
        threads: of torch.
        case: its name; ``peak`` for the machine's own speed.
        d_model .. lengths: the configuration.
        dropout: rate of both kinds; 0 in a forward pass alone.
        passes: ``forward`` or ``forward+backward``; of a training step ``step`` or the part of it.
        implementation: what ran.
        median_us, q1_us, q3_us: microseconds on the clock over ``rounds`` rounds.
        cpu_median_us: microseconds of the calling thread on a processor, for one thread.
        tokens: real ones.
        gflop: 1e9 operations for the real tokens (:mod:`benchmarks.cases.flops`).
        gflops: ``gflop`` over the median, a second.
        speedup: plain's time over this one's, median over the rounds of the same run.
        bytes_saved: kept for the backward pass.
        left_out: why there is nothing measured: what kept a peer from running on this machine.
    """

    date: str
    revision: str
    machine: str
    python: str
    torch: str
    threads: int
    case: str
    implementation: str
    precision: str
    passes: str | None = None
    d_model: int | None = None
    n_heads: int | None = None
    d_ff: int | None = None
    n_layers: int | None = None
    steps: int | None = None
    batch: int | None = None
    max_length: int | None = None
    lengths: str | None = None
    dropout: float | None = None
    median_us: float | None = None
    q1_us: float | None = None
    q3_us: float | None = None
    cpu_median_us: float | None = None
    rounds: int | None = None
    tokens: int | None = None
    gflop: float | None = None
    gflops: float | None = None
    speedup: float | None = None
    bytes_saved: int | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class GpuRow(Row):
    """A measurement on a GPU, which ``machine`` names.

    ``median_us`` and its quartiles are between two events on the device, which the host has run ahead
    of: what its own work takes shows in ``wall_us``.

    Attributes:
        wall_us: median on the clock, from an idle device to the result.
        host_us: median on the clock until the call returned.
        floor_us: what the card could do the case in, :mod:`benchmarks.gpu.card`.
        gbytes: 1e9 bytes a second, for the card's own speed.
    """

    wall_us: float | None = None
    host_us: float | None = None
    floor_us: float | None = None
    gbytes: float | None = None


@dataclass(frozen=True)
class CatalogueRow(Row):
    """A measurement of a catalogue op; ``case`` is the op, ``batch`` its rows, ``d_model`` their width.

    ``gflop`` counts the products that cannot be done without: one with the table for scores, two more
    for gradients.

    Attributes:
        n_items: of the catalogue.
        peak_bytes: resident memory at its peak beside the table and its gradient.
    """

    n_items: int | None = None
    peak_bytes: int | None = None


def what_was_found(row: Row) -> dict[str, object]:
    """The numbers of a race that a benchmark keeps of a runner, or why there are none."""
    if row.left_out:
        return {"left_out": row.left_out}
    return {"median_us": row.median_us, "speedup": row.speedup}


_PARSERS = {"int": int, "float": float, "str": str}


def columns_of(kind: type[Row]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


COLUMNS = columns_of(Row)


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows, all of one kind, to the file, which is made where there is none.

    Raises:
        ValueError: the file has other columns.
    """
    given = list(rows)
    if not given:
        return
    kind = type(given[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or path.stat().st_size == 0
    if not is_new:
        _check_columns(path, kind)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(columns_of(kind))
        writer.writerows([_cell(value) for value in asdict(row).values()] for row in given)


def read_rows(path: Path, kind: type[AnyRow] = Row) -> list[AnyRow]:  # type: ignore[assignment]
    """All rows of a file, oldest first."""
    _check_columns(path, kind)
    parsers = {field.name: _PARSERS[str(field.type).split(" | ")[0]] for field in fields(kind)}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            kind(
                **{name: parsers[name](text) if text else None for name, text in cells.items()}  # type: ignore[arg-type]
            )
            for cells in csv.DictReader(file)
        ]


def _check_columns(path: Path, kind: type[Row]) -> None:
    wanted = columns_of(kind)
    with path.open(newline="", encoding="utf-8") as file:
        found = tuple(next(csv.reader(file), ()))
    if found != wanted:
        raise ValueError(f"{path} has columns {found}, not {wanted}; move it away or convert it")


def newest_rows(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """For each case on each machine the rows of its newest run, in the order of the file."""
    given = list(rows)
    newest: dict[tuple[object, ...], str] = {}
    for row in given:
        newest[_case_key(row)] = max(row.date, newest.get(_case_key(row), ""))
    return [row for row in given if row.date == newest[_case_key(row)]]


def _case_key(row: Row) -> tuple[object, ...]:
    n_items = row.n_items if isinstance(row, CatalogueRow) else None
    return row.machine, row.case, row.passes, row.precision, row.threads, row.dropout, n_items
