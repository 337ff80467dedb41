"""Files of rows for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lares import table_files
from lares.table_files import FORMS, table_file


@pytest.mark.parametrize("ending", FORMS)
def test_text_of_any_kind(ending: str, tmp_path: Path) -> None:
    """Ids and titles with all that means something to CSV or JSON."""
    texts = ['a, "b"', "two\nlines", " blank ", "日本", "\\", "7", "tab\t"]
    table = pa.table(
        {
            "user": pa.array(texts, pa.large_string()),
            "item": pa.array(texts[::-1], pa.large_string()),
            "score": pa.array([0.1, None, -1e-20, 3e20, 1, 2, 3], pa.float32()),
            "rank": pa.array(range(7), pa.int32()),
            "title": pa.array([None, *texts[1:]], pa.large_string()),
        }
    )
    path = tmp_path / f"whole{ending}"
    with table_file(path, table.schema) as add:
        add(table)
        assert not path.exists()
        add(table)
    if ending == ".csv":
        assert path.read_text("utf-8").startswith("user,item,score,rank,title\n")
        kinds = {name: table.schema.field(name).type for name in table.column_names}
        options = pa.csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
        parsing = pa.csv.ParseOptions(newlines_in_values=True)
        found = pa.csv.read_csv(path, convert_options=options, parse_options=parsing)
    elif ending == ".jsonl":
        lines = path.read_text("utf-8").splitlines()
        found = pa.Table.from_pylist([json.loads(line) for line in lines], table.schema)
    else:
        found = pq.read_table(path)
    assert found.equals(pa.concat_tables([table, table]))


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "_AT_ONCE", 10)
    numbers = pa.table({"user": [*range(28)]})
    with table_file(tmp_path / "whole.parquet", numbers.schema) as add:
        add(numbers)
        add(numbers)
    whole = pq.ParquetFile(tmp_path / "whole.parquet")
    assert whole.read()["user"].to_pylist() == [*range(28), *range(28)]
    sizes = [whole.metadata.row_group(n).num_rows for n in range(whole.metadata.num_row_groups)]
    assert max(sizes) <= 10


@pytest.mark.parametrize("ending", FORMS)
def test_what_fails_leaves_what_was_there(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"old{ending}"
    path.write_text("before")
    table = pa.table({"user": [1]})
    with pytest.raises(RuntimeError, match="stopped"), table_file(path, table.schema) as add:
        add(table)
        raise RuntimeError("stopped")
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]
