"""From measurements of one run to rows of the results file."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.catalogue import ROWS, WIDTH, CatalogueCase
from benchmarks.cases.flops import case_flops
from benchmarks.cases.op import DROPOUT, SHAPE, Case
from benchmarks.cases.problem import problem_of
from benchmarks.core.machine import instruction_sets, machine_name, revision
from benchmarks.core.race import Race, Sample, Summary, summary_of
from benchmarks.report.results import GpuRow, Row, append_rows
from benchmarks.steps import rpt
from lares_kernels import cpu_peak
from lares_kernels.binding.cpu_library import use_instruction_set

Cells = Mapping[str, Any]  # of a row, by column


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
        found = {("fp32", ""): cpu_peak("fp32"), ("bf16", ""): cpu_peak("bf16")}
        if "avx2" in instruction_sets()[1:]:
            with use_instruction_set("avx2"):
                found["fp32", ":avx2"] = cpu_peak("fp32")
        for (precision, of_set), gflops in found.items():
            if gflops is not None:
                self.record_speed(f"peak{of_set}", "cpu_peak", precision, gflops=gflops)

    def record_speed(self, case: str, implementation: str, precision: str, **found: float) -> None:
        """One row of the machine's own speed, such as ``gflops`` or ``gbytes``."""
        self._add({"case": case, "precision": precision, "threads": 1}, {implementation: found})

    def record_race(self, case: Case, race: Race, floor_us: float | None = None) -> dict[str, Row]:
        """A row for every runner, by name; ``floor_us`` goes with rows of a GPU."""
        lengths = problem_of(case).lengths.tolist()
        if case.config.mixes_window:
            lengths = [case.max_length] * len(lengths)
        gflop = 1e-9 * case_flops(case, lengths)
        return self._of_race(_shape(case), race, gflop, {"tokens": sum(lengths)}, floor_us)

    def record_memory(self, case: Case, bytes_saved: Mapping[str, int]) -> None:
        """A row for every implementation."""
        tokens = int(problem_of(case).lengths.sum())
        cells = {name: {"bytes_saved": n, "tokens": tokens} for name, n in bytes_saved.items()}
        self._add(_shape(case), cells)

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
        samples = {
            name: {whole: race.samples[name]}
            | {part: _samples(found[part] for found in parts[name]) for part in parts[name][0]}
            for name in race.runners
        }
        base = samples.get(race.base, {})
        cells: dict[str, dict[str, Cells]] = {
            name: {part: _times(summary_of(own, base.get(part))) for part, own in found.items()}
            for name, found in samples.items()
        }
        cells |= {name: {whole: {"left_out": why}} for name, why in race.left_out.items()}
        shape = {"case": case, "precision": precision, "batch": batch, "dropout": dropout}
        shape["threads"] = torch.get_num_threads()
        return {
            name: [self._add(shape | {"passes": p}, {name: c})[name] for p, c in found.items()]
            for name, found in cells.items()
        }

    def record_catalogue(self, case: CatalogueCase, race: Race) -> dict[str, Row]:
        """A row for every runner of a catalogue op, by name."""
        gflop = 2e-9 * case.products * ROWS * case.n_items * WIDTH
        return self._of_race(_catalogue_shape(case), race, gflop)

    def record_catalogue_memory(self, found: Mapping[tuple[str, int], int | str]) -> None:
        """A row for every (implementation, number of items): bytes, or why they are not known."""
        for (name, n_items), taken in found.items():
            shape = _catalogue_shape(CatalogueCase("cross_entropy", n_items))
            self._add(shape | {"case": "memory"}, {name: _bytes(taken)})

    def record_rpt(
        self,
        case: str,
        seconds: Mapping[str, Sequence[float]],
        batch: int,
        left_out: Mapping[str, str],
    ) -> dict[str, Row]:
        """A row for every program of an RPT step, by name, from the seconds of each round."""
        samples = {name: _samples(own) for name, own in seconds.items()}
        base = samples.get(rpt.NAMES[0])
        cells: dict[str, Cells] = {
            name: _times(summary_of(own, base)) for name, own in samples.items()
        }
        cells |= {name: {"left_out": why} for name, why in left_out.items()}
        return self._add(_rpt_shape(case, batch), cells)

    def record_rpt_memory(self, found: Mapping[str, int | str], batch: int) -> None:
        """A row for every program of an RPT step: bytes, or why they are not known."""
        cells = {name: _bytes(taken) for name, taken in found.items()}
        self._add(_rpt_shape("rpt_memory", batch), cells)

    def _of_race(
        self,
        shape: Cells,
        race: Race,
        gflop: float,
        of_all: Cells | None = None,
        floor_us: float | None = None,
    ) -> dict[str, Row]:
        """A row for every peer that was left out and for every runner, by name."""
        cells: dict[str, Cells] = {name: {"left_out": why} for name, why in race.left_out.items()}
        for name in race.runners:
            found = race.summary(name)
            measured = {
                **_times(found),
                "cpu_median_us": 1e6 * found.cpu_median if shape["threads"] == 1 else None,
                "gflop": gflop,
                "gflops": gflop / found.median,
                **(of_all or {}),
            }
            if self.kind is GpuRow and found.wall_median is not None:
                measured["wall_us"] = 1e6 * found.wall_median
                measured["host_us"] = 1e6 * (found.host_median or 0.0)
                measured["floor_us"] = floor_us
            cells[name] = measured
        return self._add(shape, cells)

    def _add(self, shape: Cells, cells: Mapping[str, Cells]) -> dict[str, Row]:
        """Rows of one shape with what was found of each implementation, by its name."""
        rows = {
            name: self.kind(implementation=name, **self.run, **shape, **found)
            for name, found in cells.items()
        }
        self.rows += rows.values()
        for path in self.paths:
            append_rows(path, rows.values())
        return rows


def _shape(case: Case) -> Cells:
    """The cells that say what was run."""
    same = (*SHAPE, "precision", "threads", "passes")
    return {"case": case.name, "dropout": case.rate, **{name: getattr(case, name) for name in same}}


def _catalogue_shape(case: CatalogueCase) -> Cells:
    same = ("precision", "threads", "passes", "n_items")
    found = {name: getattr(case, name) for name in same}
    return {"case": case.op, "d_model": WIDTH, "batch": ROWS, **found}


def _rpt_shape(case: str, batch: int) -> Cells:
    shape = {"precision": "fp32", "threads": 1, "passes": "step", "n_items": rpt.N_ITEMS}
    return {"case": case, "batch": batch, **shape}


def _samples(seconds: Iterable[float]) -> list[Sample]:
    """Of what was timed on the clock alone."""
    return [Sample(wall, cpu=0.0) for wall in seconds]


def _times(found: Summary) -> dict[str, Any]:
    times = {"median_us": found.median, "q1_us": found.q1, "q3_us": found.q3}
    cells = {name: 1e6 * seconds for name, seconds in times.items()}
    return {**cells, "rounds": found.rounds, "speedup": found.speedup}


def _bytes(taken: int | str) -> Cells:
    return {"peak_bytes": taken} if isinstance(taken, int) else {"left_out": taken}
