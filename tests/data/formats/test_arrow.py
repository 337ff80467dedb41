"""Tables in memory: read as files are, whatever library they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from lares.data import load_dataset
from lares.data.formats.arrow import ArrowTable
from lares.errors import DataError

N = 4_000
GENERATOR = np.random.default_rng(3)
COLUMNS = {
    "user_id": GENERATOR.integers(0, 300, N),
    "item_id": GENERATOR.integers(0, 500, N),
    "timestamp": GENERATOR.permutation(N),
}


def stream(table: pa.Table) -> Any:
    """A table of a library that Arrow has never heard of."""

    class Stream:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return table.__arrow_c_stream__(requested_schema)

    return Stream()


KINDS: dict[str, Callable[[pa.Table], Any]] = {
    "arrow": lambda table: table,
    "chunks": lambda table: pa.concat_tables([table.slice(0, 7), table.slice(7)]),
    "batch": lambda table: table.to_batches()[0],
    "stream": stream,
    "dict": lambda table: {name: table[name].to_numpy() for name in table.column_names},
    "pandas": lambda table: pytest.importorskip("pandas") and table.to_pandas(),
    "polars": lambda table: pytest.importorskip("polars").from_arrow(table),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_samples_are_those_of_a_file(kind: str, tmp_path: Any) -> None:
    table = pa.table(COLUMNS)
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    expected, found = load_dataset(tmp_path / "x.parquet"), load_dataset(KINDS[kind](table))
    assert found.digest() == expected.digest()
    assert found.sequences is not None
    assert expected.sequences is not None
    assert found.sequences.user_ids.equals(expected.sequences.user_ids)
    assert np.array_equal(found.sequences.items, expected.sequences.items)
    assert load_dataset(KINDS[kind](table), core=6).digest() != expected.digest()


def test_whole_histories_are_kept_and_move_with_the_rows() -> None:
    dataset = load_dataset({"user_id": [2, 1, 2, 2, 2], "item_id": [5, 9, 7, 6, 5]}, time_column="")
    for each in (dataset, dataset.with_vocabulary(type(dataset.vocabulary)([1, 5, 6, 7, 9]))):
        sequences = each.sequences
        assert sequences is not None
        assert sequences.user_ids.to_pylist() == [1, 2]
        assert sequences.offsets.tolist() == [0, 1, 5]
        assert each.vocabulary.decode(sequences.items.tolist()) == [9, 5, 7, 6, 5]


def test_columns_of_pandas_that_are_no_plain_ones() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    plain = load_dataset(frame)
    frame["user_id"] = frame["user_id"].astype("Int64")
    frame["item_id"] = frame["item_id"].astype(float)
    frame["timestamp"] = pandas.to_datetime(frame["timestamp"], unit="s", utc=True)
    assert load_dataset(frame.set_index(frame["user_id"] % 7)).digest() == plain.digest()
    frame["item_id"] = frame["item_id"].astype(int).astype(str).astype("category")
    found = load_dataset(frame)
    assert found.source["item ids"] == "text"
    assert found.source["times"] == "column 'timestamp', timestamps with zone"
    frame[3] = 1
    assert load_dataset(frame, time_column="3").source["times"] == "column '3', whole numbers"
    frame.loc[17, "user_id"] = pandas.NA
    with pytest.raises(DataError, match=r"the DataFrame, row 17 .*: column 'user_id' is empty"):
        load_dataset(frame)
    kept = load_dataset(frame, drop_missing=True)
    assert kept.n_interactions == N - 1


def test_a_column_of_several_kinds_is_in_nobodys_way() -> None:
    """Times are looked for among columns that nobody asked for."""
    mixed = [1, "a", None, 2.5] * 1000
    dataset = load_dataset(
        {**COLUMNS, "timestamp": mixed, "at": COLUMNS["timestamp"]}, time_column="at"
    )
    assert dataset.n_interactions == N
    columns = {"user_id": COLUMNS["user_id"], "item_id": COLUMNS["item_id"], "mixed": mixed}
    assert "no column looks like times" in load_dataset(columns).notes[0]
    with pytest.raises(DataError, match="row 1 .*'mixed' holds 'a', text, and something else"):
        load_dataset(columns, time_column="mixed")


def test_what_is_no_value_is_of_no_kind() -> None:
    """Of numbers and text the text is the other kind, whatever is missing before it."""
    pandas = pytest.importorskip("pandas")
    items = pandas.Series([1, pandas.NA, None, 2.5, float("nan"), "a"], dtype=object)
    with pytest.raises(DataError, match="the dict, row 5 .* holds 'a', text, and something else"):
        load_dataset({"user_id": [1] * 6, "item_id": items})
    lists = [[1], np.ones(2), "a"]
    with pytest.raises(
        DataError, match="the dict, row 1 .* holds array.*, a ndarray, and something"
    ):
        load_dataset({"user_id": [1] * 3, "item_id": lists})


def test_a_data_frame_of_a_kind_of_its_own() -> None:
    pandas = pytest.importorskip("pandas")

    class Frame(pandas.DataFrame):
        pass

    found = load_dataset(Frame(COLUMNS))
    assert found.source["format"] == "pandas DataFrame"


def test_text_that_is_none() -> None:
    letters = pa.StringArray.from_buffers(
        2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")
    )
    with pytest.raises(DataError, match="column 'item_id' cannot be read: .*UTF8"):
        load_dataset({"user_id": [1, 1], "item_id": letters})


def test_a_format_is_of_files() -> None:
    with pytest.raises(DataError, match="format is 'csv', but a table in memory is no file"):
        load_dataset(COLUMNS, format="csv")


def test_batches_are_pieces_of_the_columns_asked_for() -> None:
    found = [*ArrowTable(pa.table(COLUMNS)).batches(["item_id"])]
    assert (
        pa.Table.from_batches(found)["item_id"].to_numpy().tolist() == COLUMNS["item_id"].tolist()
    )
