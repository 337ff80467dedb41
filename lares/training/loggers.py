"""Logs of a run: ``metrics.csv`` and ``timing.csv``, one row an epoch, and TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lares.errors import CheckpointError
from lares.files import atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class CsvLog:
    """A CSV file whose rows are numbered by their first column, ``epoch``.

    Args:
        path: of the file.
        last_epoch: rows of later epochs, left by a run that was killed, are dropped.

    Raises:
        CheckpointError: the file that is there is damaged.
    """

    def __init__(self, path: Path, last_epoch: int) -> None:
        self.path = path
        self.rows = [row for row in read_rows(path) if int(row["epoch"]) <= last_epoch]
        self._write()

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Add a row; the file is replaced as a whole, so that it never ends in half a row."""
        self.rows.append({name: str(value) for name, value in row.items()})
        self._write()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with (
            atomic_write(self.path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, names)
            if names:
                writer.writeheader()
            writer.writerows(self.rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV log; none if it is not there.

    Raises:
        CheckpointError: it cannot be read, or a row is not as the header says, or not of an epoch.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            names, rows = reader.fieldnames, list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error
    if names and "epoch" not in names:
        raise _damaged(path, "there is no column epoch")
    for number, row in enumerate(rows):
        if None in row or None in row.values():
            raise _damaged(path, f"row {number + 1} has not as many cells as the header")
        if not row["epoch"].isdecimal():
            raise _damaged(path, f"row {number + 1} has {row['epoch']!r} for its epoch")
    return rows


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged ({reason}); restore it from a copy, or move it away to go on with a new one"
    )


def open_tensorboard(folder: Path, first_step: int) -> SummaryWriter:
    """A TensorBoard writer; what an interrupted run logged from ``first_step`` on is hidden."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step)
