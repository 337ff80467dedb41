"""Logs of a run: ``metrics.csv`` and ``timing.csv``, one row an epoch, and TensorBoard.

Lightning Fabric's loggers do not serve: its ``CSVLogger`` deletes what a run to be resumed has logged,
writes in place, and adds a column; its ``TensorBoardLogger`` writes in a thread that dies silently on a
full disk.
"""

from __future__ import annotations

import csv
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lares.errors import CheckpointError
from lares.files import atomic_write
from lares.training.breakdown import METRICS, Breakdown


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


class Board:
    """TensorBoard logs, whose failures :meth:`check` tells.

    Args:
        folder: of the logs.
        first_step: what an interrupted run logged from it on is hidden.

    Raises:
        CheckpointError: as :meth:`check`.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder = folder
        self._failed: OSError | None = None
        # Readers go by how the name begins, and take files in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"

        def begin() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115  # until close

        self._trying(begin)
        self._write(step=first_step, file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        self.check()

    def add(self, name: str, value: float, step: int) -> None:
        """Log a number of a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))

    def add_picture(self, name: str, png: bytes, step: int) -> None:
        """Log a picture of a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def close(self) -> None:
        """Write what is left."""
        self._trying(lambda: self._writer.close())

    def check(self) -> None:
        """Raise ``CheckpointError`` if the logs could not be written."""
        if self._failed is not None:
            reason = " ".join(str(self._failed).split())
            raise CheckpointError(
                f"{self._folder} could not be written: {reason}; make room, or go on with "
                "--trainer.tensorboard false"
            )

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        def write() -> None:
            self._writer.write(Event(wall_time=time.time(), **content).SerializeToString())
            self._writer.flush()

        self._trying(write)

    def _trying(self, action: Callable[[], object]) -> None:
        """Do something, unless writing has failed before."""
        if self._failed is None:
            try:
                action()
            except OSError as error:
                self._failed = error


def log_test(folder: Path, breakdown: Breakdown, picture: Path, epochs: int) -> None:
    """Log what a run's test came to, in place of what was logged before of that.

    A table is a curve by its own steps: depth, tenth by popularity, longest history of the group.

    Args:
        folder: of these logs; beside those of the training, whose steps are others.
        breakdown: of the best model.
        picture: a PNG.
        epochs: of the run, the picture's step.

    Raises:
        CheckpointError: they could not be written.
    """
    board = Board(folder, 0)
    tables = {
        "by_depth": (breakdown.by_depth, "depth"),
        "by_popularity_tenth": (breakdown.by_popularity, "tenth"),
        "by_history_length": (breakdown.by_length, "longest"),
    }
    for name, (rows, place) in tables.items():
        for row in rows:
            for metric in METRICS:
                board.add(f"{name}/{metric}", row[metric], int(row[place]))
    board.add_picture("curves", picture.read_bytes(), epochs)
    board.close()
    board.check()
