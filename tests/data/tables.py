"""Small files of interactions for the tests of this folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lares.data import Dataset, load_dataset

HEADER = ("user_id", "item_id", "timestamp")


def peak_megabytes(status: str) -> float:
    """The peak of a process's memory by its ``/proc/self/status``; what ``getrusage`` tells a process
    may be that of the one that started it."""
    found = re.search(r"VmHWM:\s+([0-9]+) kB", status)
    assert found is not None
    return int(found.group(1)) / 1024


def four_of(values: Sequence[object]) -> list[tuple[object, ...]]:
    """Rows of users who each have the values in order: enough to train on."""
    return [(f"u{user}", value, place) for user in range(2) for place, value in enumerate(values)]


def write_text(
    path: Path, rows: Iterable[Sequence[object]], delimiter: str = ",", header=HEADER
) -> Path:
    lines = [header, *rows] if header else rows
    text = "".join(delimiter.join(map(str, row)) + "\n" for row in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(path: Path, items: pa.Array, times: pa.Array | None = None) -> Path:
    """A single user's items in order."""
    columns = {"user_id": pa.array([1] * len(items)), "item_id": items}
    if times is not None:
        columns["timestamp"] = times
    pq.write_table(pa.table(columns), path)
    return path


def history(path: Path, **options) -> list[object]:
    """Raw items of the first user, oldest first."""
    dataset = load_dataset(path, **options)
    return items_of(dataset)


def items_of(dataset: Dataset) -> list[object]:
    test = dataset.test
    return dataset.vocabulary.decode(test.items[test.starts[0] : test.ends[0] + 1])
