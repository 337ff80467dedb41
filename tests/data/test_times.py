"""Times of every form, in order; columns of two forms and cells that are no time."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares.data import load_dataset
from lares.errors import DataError
from tests.data.tables import history, items_of, write_parquet, write_text

# Four of each in ascending order; a test writes them in another.
ASCENDING = {
    "whole numbers": [
        "-5 0 7 12",
        "1 +2 003 4",
        "1700000000000000000 1700000000000000001 1700000000000000002 1700000000000000003",
        "-9223372036854775808 0 9223372036854775806 9223372036854775807",
        "0 9223372036854775808 18446744073709551614 18446744073709551615",
    ],
    "real numbers": [
        "-1.5 0 0.25 1e3",
        ".5 1. 1.5E0 2",
        "1.6e9 1700000000.1 1700000000.25 1.8E+09",
    ],
    "dates": [
        "1969-12-31 1999-12-31 2024-02-29 2026-03-01",
        "0001-01-01 1677-01-01 2262-12-31 9999-12-31",
    ],
    "dates with time": [
        "2026-03-01_09:59:59 2026-03-01_10:00:00 2026-03-01_10:00:01 2026-03-02_00:00:00",
        "2026-03-01T10:00:00 2026-03-01T10:00:00.5 2026-03-01T10:00:00.500001 2026-03-01T10:01",
        "2026-03-01_10:00:00.000000001 2026-03-01_10:00:00.000000002 "
        "2026-03-01_10:00:00.00001 2026-03-01_10:00:01",
        "0001-01-01_00:00:00 1969-12-31_23:59:59.999999 1970-01-01_00:00:00 9999-12-31_23:59:59",
    ],
    "dates with time and zone": [
        "2026-03-01T10:00:00+02:00 2026-03-01T09:00:00Z 2026-03-01T04:30:00-05:30 2026-03-01T12:00:00Z",
        "2026-03-01_10:00:00+0200 2026-03-01_08:00:00.000000001+00 2026-03-01_08:00:00.5_UTC "
        "2026-03-01_10:00:01_+02:00",
    ],
}
CASES = [(form, texts) for form, columns in ASCENDING.items() for texts in columns]
SHUFFLED = (2, 0, 3, 1)


@pytest.mark.parametrize(("form", "texts"), CASES, ids=lambda value: value[:30])
def test_times_of_text(tmp_path: Path, form: str, texts: str) -> None:
    times = [text.replace("_", " ") for text in texts.split()]
    rows = [("u", f"i{place}", times[place]) for place in SHUFFLED]
    path = write_text(tmp_path / "x.csv", rows)
    dataset = load_dataset(path)
    assert items_of(dataset) == ["i0", "i1", "i2", "i3"]
    assert dataset.source["times"] == f"column 'timestamp', {form}"
    table = pa.table(
        dict(zip(("user_id", "item_id", "timestamp"), zip(*rows, strict=True), strict=True))
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert history(tmp_path / "x.parquet") == ["i0", "i1", "i2", "i3"]


def _at(*values: int, kind: pa.DataType) -> pa.Array:
    return pa.array(values).cast(kind)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1, 2, 3, 4], pa.int16()),
        pa.array([2**63 - 4, 2**63 - 3, 2**63 - 2, 2**63 - 1]),
        pa.array([2**64 - 4, 2**64 - 3, 2**64 - 2, 2**64 - 1], pa.uint64()),
        pa.array([0.5, 1.0, 1.5, 2.0], pa.float32()),
        pa.array([Decimal("0.5"), Decimal(1), Decimal("1.5"), Decimal(2)]),
        *(_at(*(2**60 + n for n in range(4)), kind=pa.timestamp(unit)) for unit in ("us", "ns")),
        *(_at(1, 2, 3, 4, kind=pa.timestamp(unit)) for unit in ("s", "ms")),
        pa.array([1, 2, 3, 4], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([datetime.date(2026, 3, day) for day in range(1, 5)], pa.date32()),
        pa.array([datetime.date(2026, 3, day) for day in range(1, 5)], pa.date64()),
        pa.array(["1", "2", "3", "4"]).dictionary_encode(),
    ],
    ids=lambda times: str(times.type),
)
def test_times_of_parquet(tmp_path: Path, times: pa.Array) -> None:
    order = pa.array(SHUFFLED)
    path = write_parquet(tmp_path / "x.parquet", order, times.take(order))
    assert history(path) == [0, 1, 2, 3]


def test_times_of_text_that_is_a_view(tmp_path: Path) -> None:
    times = pa.array([str(number) for number in SHUFFLED]).cast(pa.string_view())
    path = write_parquet(tmp_path / "x.parquet", pa.array(SHUFFLED), times)
    assert history(path) == [0, 1, 2, 3]


DAY, MINUTE, ZONED = "2026-03-01", "2026-03-01T10:00", "2026-03-01T10:00Z"
BAD = [
    (["1", "2", "noon"], "line 4: 'noon' is no time; write numbers, or dates"),
    (["noon", "2"], "line 2: 'noon' is no time"),
    (
        ["1", DAY],
        "line 3: time '2026-03-01' is a date, but the first, '1', is a whole number; all times",
    ),
    (["1.5", DAY], "line 3: time '2026-03-01' is a date, but the first, '1.5', is a real number"),
    ([DAY, "2"], "line 3: time '2' is a whole number, but the first, '2026-03-01', is a date"),
    ([DAY, MINUTE], "line 3: time '2026-03-01T10:00' is a date with time, but"),
    ([MINUTE, DAY], "line 3: time '2026-03-01' is a date, but"),
    ([MINUTE, ZONED], "line 3: time '2026-03-01T10:00Z' is a date with time and zone, but"),
    ([ZONED, MINUTE], "line 3: time '2026-03-01T10:00' is a date with time, but"),
    ([DAY, "2026-02-30"], "line 3: '2026-02-30' is no day and time that there is"),
    ([DAY, "2026-13-01"], "line 3: '2026-13-01' is no day"),
    ([MINUTE, "2026-03-01 24:01:00"], "line 3: '2026-03-01 24:01:00' is no day"),
    ([ZONED, "2026-03-01 10:61:00Z"], "line 3: '2026-03-01 10:61:00Z' is no day"),
    (
        [MINUTE + ":00.000000001", "2300-03-01 10:00:00"],
        "'2300-03-01 10:00:00' is too far from 1970",
    ),
    (["03/01/2026"], "line 2: '03/01/2026' is no time"),
    (["1", "0x10"], "line 3: '0x10' is no time"),
    (["1", "1_000"], "line 3: '1_000' is no time"),
    (["1.5", "inf"], "line 3: 'inf' is no time"),
    (["1.5", "1e999"], "line 3: time inf is not finite"),
    (["1", "18446744073709551616"], "line 3: time '18446744073709551616' does not fit 64 bits"),
    (["-1", "18446744073709551615"], "line 3: time '18446744073709551615' does not fit 64 bits"),
    (["1.5", "9007199254740993"], "line 3: time '9007199254740993' stands among real numbers"),
    (["1", "2", ""], "line 4: column 'timestamp' is empty"),
    (["1", "2", " "], "line 4: column 'timestamp' is empty"),
    (["1.5", "nan"], "line 3: column 'timestamp' is empty"),
    ([DAY, "NaT"], "line 3: column 'timestamp' is empty"),
]


@pytest.mark.parametrize(("times", "message"), BAD, ids=lambda value: str(value)[:30])
def test_no_times(tmp_path: Path, times: list[str], message: str) -> None:
    rows = [("u", f"i{place}", time) for place, time in enumerate(times)]
    path = write_text(tmp_path / "x.csv", rows)
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pa.array([1.0, float("nan"), 2.0, 3.0]), "row 2: column 'timestamp' is empty"),
        (pa.array([1.0, float("inf"), 2.0, 3.0]), "row 2: time inf is not finite"),
        (pa.array([1, None, 2, 3]), "row 2: column 'timestamp' is empty"),
        (pa.array([None] * 4), "row 1: column 'timestamp' is empty"),
        (pa.array([True] * 4), "the time is bool"),
        (pa.array([1] * 4, pa.time32("s")), "the time is time32"),
        (pa.array(["1", "x", "2", "3"]), "row 2: 'x' is no time"),
    ],
    ids=str,
)
def test_no_times_of_parquet(tmp_path: Path, times: pa.Array, message: str) -> None:
    path = write_parquet(tmp_path / "x.parquet", pa.array([1, 2, 3, 4]), times)
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert message in str(caught.value)


LOOKS = {
    "date": ["2026-03-02", "2026-03-01", "2026-03-04", "2026-03-03"],
    "seen": ["2026-03-02T10:00Z", "2026-03-01T10:00Z", "2026-03-04T10:00Z", "2026-03-03T10:00Z"],
    **{name: ["4", "3", "2", "1"] for name in ("event_time", "unixReviewTime")},
    **{
        unit: [f"{1_700_000_000 + second}{zeros}" for second in (3, 2, 1, 0)]
        for unit, zeros in (("number", ""), ("ms", "000"), ("ns", "000000000"))
    },
}
NOT = {
    "rating": ["4", "3", "2", "1"],
    "sentiment": ["0.5", "0.25", "0.1", "0"],
    "title": ["a", "b", "c", "d"],
    "update": ["soon", "late", "a", "b"],
    "empty": ["", "", "", ""],
}


@pytest.mark.parametrize("form", ["csv", "parquet", "inter"])
def test_row_order_is_said(tmp_path: Path, form: str) -> None:
    columns = {"user_id": ["u"] * 4, "item_id": ["b", "a", "d", "c"], **LOOKS, **NOT}
    rows = list(zip(*columns.values(), strict=True))
    if form == "parquet":
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table(columns), path)
    else:
        header = [f"{name}:token" for name in columns] if form == "inter" else list(columns)
        path = write_text(tmp_path / f"x.{form}", rows, "\t" if form == "inter" else ",", header)
    dataset = load_dataset(path)
    assert items_of(dataset) == ["b", "a", "d", "c"]
    assert dataset.source["times"] == "order of the rows"
    (note,) = dataset.notes
    assert note.startswith("rows are taken in the order of the file")
    assert f"columns that look like times: {', '.join(map(repr, LOOKS))} (" in note
    assert "--data.time_column" in note
    for time, items in {"": "badc", "date": "abcd"}.items():
        dataset = load_dataset(path, time_column=time)
        assert dataset.notes == ()
        assert items_of(dataset) == [*items]
    with pytest.raises(DataError, match="has no column 'when'"):
        load_dataset(path, time_column="when")


def test_row_order_where_nothing_looks_like_times(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "x.csv", [("u", item) for item in "badc"], header=("user_id", "item_id")
    )
    (note,) = load_dataset(path).notes
    assert "no column looks like times" in note
    assert history(path) == ["b", "a", "d", "c"]
