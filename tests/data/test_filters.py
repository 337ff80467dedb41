"""Rows that are left out: by condition, time, repeats and core."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares.data import load_dataset
from lares.data.conditions import Comparison, Joined, parse_condition
from lares.errors import ConfigError, DataError
from tests.data.tables import HEADER, items_of, write_text

COLUMNS = (*HEADER, "rating", "event", "the kind")
ROWS = [
    (user, item, 1_000_000_000 + 3600 * place, (user + item) % 5 + 1, event, kind)
    for user in range(1, 5)
    for place, (item, event, kind) in enumerate(
        [(1, "view", "a"), (2, "buy", "b"), (3, "view", ""), (4, "it's", "a"), (5, "view", "b")] * 2
    )
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_text(tmp_path / "log.csv", ROWS, header=COLUMNS)


CONDITIONS = [
    "rating >= 4",
    "rating=4 or rating = 5",
    "rating <> 3 AND event == 'view'",
    "event in ('view', 'it''s') and not rating < 3",
    "not (rating > 2 and event = 'view')",
    "rating not in (1, 2.0, +3e0)",
    "\"the kind\" = 'a'",
    "\"the kind\" != 'a'",
    "not \"the kind\" in ('b')",
    "item_id > 1 and item_id <= 4 or user_id = 2",
    "event >= 'c'",
]


@pytest.mark.parametrize("where", CONDITIONS)
def test_conditions_are_those_of_sql(log: Path, tmp_path: Path, where: str) -> None:
    """Of CSV and Parquet alike, with and without types."""
    sql = where.replace("==", "=")
    query = f"SELECT count(*) FROM read_csv('{log}', header = true) WHERE {sql}"
    ((expected,),) = duckdb.sql(query).fetchall()
    rows = list(zip(*ROWS, strict=True))
    columns = dict(zip(COLUMNS, map(list, rows), strict=True))
    columns["the kind"] = [kind or None for kind in columns["the kind"]]
    table = pa.table(columns)
    table = table.set_column(4, "event", table.column("event").dictionary_encode())
    pq.write_table(table, tmp_path / "log.parquet")
    assert 0 < expected < len(ROWS)
    digests = set()
    for path in (log, tmp_path / "log.parquet"):
        dataset = load_dataset(path, where=where)
        assert dataset.n_interactions == expected
        (note,) = dataset.notes
        assert note == (
            f"left out: {len(ROWS) - expected} of {len(ROWS)} rows do not fulfil {where}"
        )
        digests.add(dataset.digest())
    assert len(digests) == 1


def test_what_a_condition_is() -> None:
    one, other = Comparison("a", "=", (1,)), Comparison("b c", "<", ("x",))
    assert parse_condition("a = 1 or a == 1 and not \"b c\" < 'x'") == Joined(
        "or", (one, Joined("and", (one, Joined("not", (other,)))))
    )
    assert parse_condition("(a in (1, 2.5))") == Comparison("a", "=", (1, 2.5))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("rating", "its end stands where one of = != < <= > >=, in or not in should"),
        ("rating >= good", "'good' stands where a number, or text in single quotes, should"),
        ("rating >= 4 event = 1", '"?.event = 1.* stands where .and., .or. or the end should'),
        ("(rating >= 4", r"its end stands where \) should"),
        ("rating in (1, 'a')", "has numbers and text in one list"),
        ("rating not = 3", "'= 3' stands where in should"),
        ("4 <= rating", "'4 <= rating' stands where the name of a column should"),
        ("rating >= 4; drop table x", "'; drop table x' cannot be read"),
        ("rating >= 'a", '"\'a" cannot be read'),
        ("(" * 200 + "a = 1" + ")" * 200, "is nested too deeply"),
    ],
)
def test_what_is_no_condition(log: Path, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(log, where=where)


def test_bad_cells_and_columns_are_named(tmp_path: Path, log: Path) -> None:
    rows = [*ROWS[:7], (9, 9, 5, "good", "view", "")]
    path = write_text(tmp_path / "bad.csv", rows, header=COLUMNS)
    with pytest.raises(DataError, match=r"bad\.csv, line 9: column 'rating' holds 'good', which"):
        load_dataset(path, where="rating >= 4")
    assert load_dataset(path, where="rating = '5' or rating != 'good'").n_interactions == 7
    with pytest.raises(
        DataError, match=r"log\.csv has no column 'stars'; its columns are 'user_id'"
    ):
        load_dataset(log, where="stars > 1")
    with pytest.raises(DataError, match="none of 40 rows fulfils data.where, rating > 5"):
        load_dataset(log, where="rating > 5")


def test_typed_columns_that_cannot_be_compared(tmp_path: Path) -> None:
    """Text that is empty, lists, truth values, and numbers beyond 64 bits."""
    columns = {
        "user_id": [1] * 4,
        "item_id": [1, 2, 3, 4],
        "stars": ["5", "", None, "4.5"],
        "tags": [["a"], [], None, ["b"]],
        "new": [True, True, True, False],
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")

    def left(where: str) -> int:
        rows = load_dataset(tmp_path / "x.parquet", where=f"{where} or user_id = 1").n_interactions
        assert rows == 4
        return rows

    left("stars > 4")
    left("item_id < 1" + "0" * 30)
    left("new = 'true'")
    for where, kind in (("tags = 'a'", "text"), ("tags > 1", "numbers"), ("new > 0", "numbers")):
        with pytest.raises(
            DataError, match=rf"holds .*, which data.where cannot compare with {kind}"
        ):
            left(where)


def test_places_are_those_of_all_rows(tmp_path: Path) -> None:
    """What is wrong with a row that is kept is told by its line in the file."""
    rows = [(1, 1, 1, 1), (1, 2, 2, 5), (1, 3, 3, 1), (1, "", 4, 5), (1, "", 5, 1)]
    path = write_text(tmp_path / "x.csv", rows, header=(*HEADER, "rating"))
    with pytest.raises(DataError, match=r"x\.csv, line 5: column 'item_id' is empty\. 1 of 2 rows"):
        load_dataset(path, where="rating > 3")


def test_columns_by_number(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x.csv", ROWS, header=())
    columns = {"user_column": "0", "item_column": "1", "time_column": "2"}
    dataset = load_dataset(path, header=False, where="\"4\" = 'view'", **columns)
    assert dataset.n_interactions == 24


MOMENTS = {
    "dates": "2020-02-{:02}",
    "dates with time": "2020-02-{:02} 12:00:00",
    "with zone": "2020-02-{:02}T12:00:00+00:00",
    "nanoseconds": "2020-02-{:02}T12:00:00.123456789",
    "seconds": 1_580_515_200 + 43_200,
    "milliseconds": 1000 * (1_580_515_200 + 43_200),
    "real": 1_580_515_200.5,
}


@pytest.mark.parametrize("form", MOMENTS)
def test_between_two_days(tmp_path: Path, form: str) -> None:
    """All rows of both days count, whatever the times are."""
    first = MOMENTS[form]
    day = 86_400_000 if form == "milliseconds" else 86_400
    times = [
        first.format(place + 1) if isinstance(first, str) else first + day * place
        for place in range(10)
    ]
    rows = [(1, place + 1, time) for place, time in enumerate(times)]
    path = write_text(tmp_path / "x.csv", rows)
    dataset = load_dataset(path, since="2020-02-03", until="2020-02-08")
    assert items_of(dataset) == [3, 4, 5, 6, 7, 8]
    assert dataset.notes == ("left out: 4 of 10 rows lie outside data.since and data.until",)
    assert dataset.source["from, to"] == "2020-02-03 to 2020-02-08"
    assert items_of(load_dataset(path, since="2020-02-03")) == list(range(3, 11))
    assert items_of(load_dataset(path, until="2020-02-04T23:00:00+02:00")) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.date32(), pa.date64()]
)
def test_days_of_arrow(tmp_path: Path, kind: pa.DataType) -> None:
    days = pa.array(range(18_000, 18_010), pa.int32()).cast(pa.date32()).cast(kind)
    table = pa.table({"user_id": [1] * 10, "item_id": range(10), "timestamp": days})
    pq.write_table(table, tmp_path / "x.parquet")
    dataset = load_dataset(tmp_path / "x.parquet", since="2019-04-15", until="2019-04-19")
    assert items_of(dataset) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        (
            range(9),
            {"since": "2020-01-01"},
            "since is a date, but the times are whole numbers that",
        ),
        (
            [f"2020-01-0{n}" for n in range(1, 10)],
            {"until": "7"},
            "until is 7, but the times are dat",
        ),
        (range(9), {"since": "yesterday"}, "since is 'yesterday'; it must be a number .*or a date"),
        (range(9), {"since": "2020-02-30"}, "since is '2020-02-30'"),
        (range(9), {"since": "5", "until": "4"}, "all 9 rows lie outside"),
        (
            range(9),
            {"since": "5", "time_column": ""},
            "need times, and rows are taken in the order",
        ),
    ],
)
def test_bounds_that_cannot_be(tmp_path: Path, times, options: dict, message: str) -> None:
    path = write_text(tmp_path / "x.csv", [(1, 1, time) for time in times])
    with pytest.raises((DataError, ConfigError), match=message):
        load_dataset(path, **options)


def test_bounds_that_are_numbers(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x.csv", [(1, item, item) for item in range(10)])
    assert items_of(load_dataset(path, since="2", until="6")) == [2, 3, 4, 5, 6]


REPEATED = [5, 5, 6, 5, 7, 7, 7, 6, 8]


@pytest.mark.parametrize(
    ("repeats", "left"),
    [
        ("keep", REPEATED),
        ("consecutive", [5, 6, 5, 7, 6, 8]),
        ("first", [5, 6, 7, 8]),
        ("last", [5, 7, 6, 8]),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_repeats(tmp_path: Path, repeats: str, left: list[int], turned: bool) -> None:
    """In order of time, whatever the rows' is."""
    rows = [(user, item, time) for time, item in enumerate(REPEATED) for user in (1, 2)]
    rows = rows[::-1] if turned else rows
    dataset = load_dataset(write_text(tmp_path / "x.csv", rows), repeats=repeats)
    assert items_of(dataset) == left
    assert dataset.n_interactions == 2 * len(left)
    out = 2 * (len(REPEATED) - len(left))
    note = f"left out: {out} of 18 rows are repeats (data.repeats {repeats})"
    assert dataset.notes == ((note,) if out else ())


def test_filters_come_in_order(tmp_path: Path) -> None:
    """Repeats are of the rows that a condition leaves, and cores of what is left of these."""
    rows = [
        (u, i, t, r)
        for u in (1, 2)
        for t, (i, r) in enumerate([(5, 5), (6, 1), (5, 5), (7, 5)] * 3)
    ]
    rows += [(3, 5, 0, 5), (3, 9, 1, 5), (3, 5, 2, 5)]
    path = write_text(tmp_path / "x.csv", rows, header=(*HEADER, "rating"))
    dataset = load_dataset(path, where="rating > 1", repeats="consecutive", core=3)
    assert items_of(dataset) == [5, 7] * 3
    assert dataset.notes[0] == "left out: 6 of 27 rows do not fulfil rating > 1"
    assert dataset.notes[1] == "left out: 6 of 21 rows are repeats (data.repeats consecutive)"
    assert dataset.notes[2] == (
        "left out: 3 of 15 rows by core 3, with 1 of 3 users and 1 of 3 items"
    )


def test_sequence_form_cannot_be_filtered(tmp_path: Path) -> None:
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    for split in ("train", "valid", "test"):
        (tmp_path / f"x.{split}.inter").write_text(f"{header}1\ta b\tc\n")
    with pytest.raises(DataError, match=r"where=a = 1, repeats=first cannot be applied"):
        load_dataset(tmp_path, where="a = 1", repeats="first")


def test_repeats_are_a_choice(log: Path) -> None:
    with pytest.raises(ConfigError, match="repeats is 'all'; it must be one of keep, consecutive"):
        load_dataset(log, repeats="all")
