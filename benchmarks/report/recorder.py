"""From measurements of one run to rows of the results file."""

from __future__ import annotations

import datetime
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.cases.catalogue import ROWS, WIDTH, CatalogueCase
from benchmarks.cases.flops import case_flops
from benchmarks.cases.op import DROPOUT, Case
from benchmarks.cases.problem import problem_of
from benchmarks.core.machine import instruction_sets, machine_name, peak, revision
from benchmarks.core.race import Race, Summary, speedup
from benchmarks.report.results import GpuRow, Row, append_rows
from benchmarks.steps import rpt
from lares_kernels.binding.cpu_library import use_instruction_set


class Recorder:
    """Adds the rows of one run to ``path``, each case as soon as it is done; ``rows`` has them all.

    A peer that was left out has a row with the reason.

    Args:
        path: of the CSV file.
        card: name of the GPU, where one is measured: rows are then :class:`GpuRow`.
        copies: further files that get the same rows.
        kind: of rows, where it does not follow from ``card``.
    """

    def __init__(
        self,
        path: Path,
        card: str | None = None,
        copies: Iterable[Path] = (),
        kind: type[Row] | None = None,
    ) -> None:
        self.paths = (path, *copies)
        self.kind = kind or (Row if card is None else GpuRow)
        self.rows: list[Row] = []
        self.run: dict[str, str] = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "revision": revision(),
            "machine": machine_name() if card is None else card,
            "python": platform.python_version(),
            "torch": torch.__version__,
        }

    def record_peaks(self) -> None:
        """The machine's GFLOP/s in each precision, and on AVX2, where the package can tell."""
        found = {("fp32", ""): peak("fp32"), ("bf16", ""): peak("bf16")}
        if "avx2" in instruction_sets()[1:]:
            with use_instruction_set("avx2"):
                found["fp32", ":avx2"] = peak("fp32")
        for (precision, of_set), gflops in found.items():
            if gflops is not None:
                row = self._row(f"peak{of_set}", "cpu_peak", precision, threads=1, gflops=gflops)
                self._append([row])

    def record_speed(self, case: str, implementation: str, precision: str, **found: float) -> None:
        """One row of the machine's own speed, such as ``gflops`` or ``gbytes``."""
        self._append([self._row(case, implementation, precision, threads=1, **found)])

    def record_race(self, case: Case, race: Race, floor_us: float | None = None) -> dict[str, Row]:
        """A row for every runner, by name; ``floor_us`` goes with rows of a GPU."""
        lengths = problem_of(case).lengths.tolist()
        if case.config.mixes_window:
            lengths = [case.max_length] * len(lengths)
        gflop = 1e-9 * case_flops(case, lengths, case.mixer)
        rows = {
            name: self._case_row(case, name, left_out=why) for name, why in race.left_out.items()
        }
        for name in race.runners:
            found = race.summary(name)
            device = {}
            if found.wall_median is not None and found.host_median is not None:
                device["wall_us"] = 1e6 * found.wall_median
                device["host_us"] = 1e6 * found.host_median
                device["floor_us"] = floor_us
            rows[name] = self._case_row(
                case,
                name,
                tokens=sum(lengths),
                **_measured(found, gflop, case.threads),
                **device,
            )
        self._append(rows.values())
        return rows

    def record_memory(self, case: Case, bytes_saved: Mapping[str, int]) -> None:
        """A row for every implementation."""
        tokens = int(problem_of(case).lengths.sum())
        self._append(
            self._case_row(case, name, bytes_saved=count, tokens=tokens)
            for name, count in bytes_saved.items()
        )

    def record_steps(
        self,
        case: str,
        batch: int,
        race: Race,
        parts: Mapping[str, list[dict[str, float]]],
        precision: str = "fp32",
        whole: str = "step",
        dropout: float = DROPOUT,
    ) -> dict[str, list[Row]]:
        """Rows of training steps, or of what ``whole`` names, by runner: the whole, then its parts
        (seconds of each round)."""
        seconds = {
            name: {whole: [sample.wall for sample in race.samples[name]]}
            | {part: [found[part] for found in parts[name]] for part in parts[name][0]}
            for name in race.runners
        }
        base = seconds.get(race.base, {})

        def row(name: str, part: str, **values: object) -> Row:
            threads = torch.get_num_threads()
            shape = {"threads": threads, "passes": part, "batch": batch, "dropout": dropout}
            return self._row(case, name, precision, **shape, **values)

        rows = {
            name: [row(name, part, **_times(own, base.get(part))) for part, own in found.items()]
            for name, found in seconds.items()
        }
        for name, why in race.left_out.items():
            rows[name] = [row(name, whole, left_out=why)]
        for found in rows.values():
            self._append(found)
        return rows

    def record_catalogue(self, case: CatalogueCase, race: Race) -> dict[str, Row]:
        """A row for every runner of a catalogue op, by name."""
        gflop = 2e-9 * case.products * ROWS * case.n_items * WIDTH

        def row(name: str, **values: object) -> Row:
            return self._row(
                case.op,
                name,
                case.precision,
                threads=case.threads,
                passes=case.passes,
                d_model=WIDTH,
                batch=ROWS,
                n_items=case.n_items,
                **values,
            )

        rows = {name: row(name, left_out=why) for name, why in race.left_out.items()}
        for name in race.runners:
            found = race.summary(name)
            rows[name] = row(name, **_measured(found, gflop, case.threads))
        self._append(rows.values())
        return rows

    def record_catalogue_memory(self, found: Mapping[tuple[str, int], int | str]) -> None:
        """A row for every (implementation, number of items): bytes, or why they are not known."""
        self._append(
            self._row(
                "memory",
                name,
                "fp32",
                threads=1,
                passes="forward+backward",
                d_model=WIDTH,
                batch=ROWS,
                n_items=n_items,
                **_bytes(taken),
            )
            for (name, n_items), taken in found.items()
        )

    def record_rpt(
        self,
        case: str,
        seconds: Mapping[str, Sequence[float]],
        batch: int,
        left_out: Mapping[str, str],
    ) -> dict[str, Row]:
        """A row for every program of an RPT step, by name, from the seconds of each round."""

        def row(name: str, **values: object) -> Row:
            shape = {"threads": 1, "passes": "step", "batch": batch, "n_items": rpt.N_ITEMS}
            return self._row(case, name, "fp32", **shape, **values)

        base = seconds.get(rpt.NAMES[0])
        rows = {name: row(name, **_times(own, base)) for name, own in seconds.items()}
        rows |= {name: row(name, left_out=why) for name, why in left_out.items()}
        self._append(rows.values())
        return rows

    def record_rpt_memory(self, found: Mapping[str, int | str], batch: int) -> None:
        """A row for every program of an RPT step: bytes, or why they are not known."""
        self._append(
            self._row(
                "rpt_memory",
                name,
                "fp32",
                threads=1,
                passes="step",
                batch=batch,
                n_items=rpt.N_ITEMS,
                **_bytes(taken),
            )
            for name, taken in found.items()
        )

    def _case_row(self, case: Case, implementation: str, **values: object) -> Row:
        return self._row(
            case.name,
            implementation,
            case.precision,
            threads=case.threads,
            passes=case.passes,
            d_model=case.d_model,
            n_heads=case.n_heads,
            d_ff=case.d_ff,
            n_layers=case.n_layers,
            steps=case.steps,
            batch=case.batch,
            max_length=case.max_length,
            lengths=case.lengths,
            dropout=DROPOUT if case.drops else 0.0,
            **values,
        )

    def _row(self, case: str, implementation: str, precision: str, **values: object) -> Row:
        return self.kind(
            case=case, implementation=implementation, precision=precision, **self.run, **values
        )  # type: ignore[arg-type]

    def _append(self, rows: Iterable[Row]) -> None:
        given = list(rows)
        self.rows += given
        for path in self.paths:
            append_rows(path, given)


def _times(own: Sequence[float], base: Sequence[float] | None) -> dict[str, object]:
    """Cells of a row from the seconds of each round."""
    q1, median, q3 = statistics.quantiles(own, n=4, method="inclusive")
    times = {"median_us": 1e6 * median, "q1_us": 1e6 * q1, "q3_us": 1e6 * q3}
    return {**times, "rounds": len(own), "speedup": speedup(base, own)}


def _measured(found: Summary, gflop: float, threads: int) -> dict[str, object]:
    """Cells of a row from what a race found of its runner."""
    return {
        "median_us": 1e6 * found.median,
        "q1_us": 1e6 * found.q1,
        "q3_us": 1e6 * found.q3,
        "cpu_median_us": 1e6 * found.cpu_median if threads == 1 else None,
        "rounds": found.rounds,
        "gflop": gflop,
        "gflops": gflop / found.median,
        "speedup": found.speedup,
    }


def _bytes(taken: int | str) -> dict[str, object]:
    return {"peak_bytes": taken} if isinstance(taken, int) else {"left_out": taken}
