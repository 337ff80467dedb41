"""Ids are names unless they are written as whole numbers are: in files and where they are looked up."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lares.data import load_dataset
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from tests.data.tables import four_of, history, items_of, write_parquet, write_text

NUMBERS = [
    ["3", "1", "2", "10"],
    ["0", "-5", "7", "-12"],
    ["9223372036854775807", "-9223372036854775808", "0", "1"],
    ["18446744073709551615", "9223372036854775808", "0", "1"],
]
NAMES = [
    ["7", "07", "007", "70"],
    ["1E1", "2E2", "3E3", "4E4"],
    ["true", "false", "True", "1"],
    ["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"],
    ["d41d8cd98f00b204", "0e46280931554731", "12345678", "00000000"],
    ["18446744073709551616", "1", "2", "3"],  # past 64 bits
    ["18446744073709551615", "-1", "2", "3"],  # both do not fit one type
    ["+5", "5", "6", "7"],
    ["-0", "0", "1", "2"],
    ["5.0", "5", "6", "7"],
    ["1_000", "1000", "1", "2"],
    ["0x1F", "0x20", "1", "2"],
    ["²", "1", "2", "3"],
    ["٣", "1", "2", "3"],
    ["nan", "inf", "null", "NA"],
    ["straße", "日本", "a b", "é"],
    ["x" * 40_000, "x", "xx", "y"],
]


@pytest.mark.parametrize(
    ("texts", "form"),
    [(texts, "csv") for texts in (*NUMBERS, *NAMES)]
    + [(texts, "inter") for texts in (*NUMBERS, NAMES[0])],
    ids=lambda value: value[0][:20] if isinstance(value, list) else value,
)
def test_ids_of_text(tmp_path: Path, texts: list[str], form: str) -> None:
    rows = four_of(texts)
    if form == "csv":
        path = write_text(tmp_path / "x.csv", rows)
    else:
        header = ("user_id:token", "item_id:token", "timestamp:float")
        path = write_text(tmp_path / "x.inter", rows, "\t", header)
    dataset = load_dataset(path)
    numeric = texts in NUMBERS
    assert dataset.vocabulary.is_numeric == numeric
    assert dataset.source["item ids"] == ("whole numbers" if numeric else "text")
    expected = [int(text) for text in texts] if numeric else texts
    assert items_of(dataset) == expected
    assert dataset.vocabulary.ids.tolist() == sorted(expected)
    if numeric:
        assert history(path, text_ids=True) == texts


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (pa.array([3, 1, 2, 4], pa.int8()), [3, 1, 2, 4]),
        (pa.array([2**64 - 1, 2**63, 5, 0], pa.uint64()), [2**64 - 1, 2**63, 5, 0]),
        (pa.array([3, 1, 2, 4], pa.uint64()), [3, 1, 2, 4]),
        (pa.array([-3, 1, 2, 4]), [-3, 1, 2, 4]),
        (pa.array([3.0, 1.0, -0.0, 0.0]), [3, 1, 0, 0]),
        (pa.array([3.0, 1.0, 2.0, 4.0], pa.float32()), [3, 1, 2, 4]),
        (pa.array([Decimal("3.00"), Decimal("1.00"), Decimal(0), Decimal("4.0")]), [3, 1, 0, 4]),
        (pa.array([Decimal(10**25), Decimal(1), Decimal(2), Decimal(3)]), [str(10**25), "1", "2", "3"]),
        (pa.array(["7", "07", "a", "b"]), ["7", "07", "a", "b"]),
        (pa.array(["3", "1", "2", "4"]), ["3", "1", "2", "4"]),  # the file says that it is text
        (pa.array(["b", "a", "c", "d"], pa.large_string()), ["b", "a", "c", "d"]),
        (pa.array(["b", "a", "c", "d"], pa.string_view()), ["b", "a", "c", "d"]),
        (pa.array([b"b", b"a", b"c", b"d"], pa.binary()), ["b", "a", "c", "d"]),
        (pa.array(["b", "a", "a", "d"]).dictionary_encode(), ["b", "a", "a", "d"]),
        (pa.array([3, 1, 1, 4]).dictionary_encode(), [3, 1, 1, 4]),
        (
            pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, 3]), pa.array(["a", "b", "unused", "c"])),
            ["b", "a", "b", "c"],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_ids_of_parquet(tmp_path: Path, items: pa.Array, expected: list[object]) -> None:
    try:
        path = write_parquet(tmp_path / "x.parquet", items)
    except pa.ArrowNotImplementedError as error:  # string views, before pyarrow 20
        pytest.skip(str(error))
    assert history(path) == expected
    assert load_dataset(path).vocabulary.ids.tolist() == sorted(set(expected))
    assert history(path, text_ids=True) == [str(item) for item in expected]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pa.array([1.0, 2.5, 3.0, 4.0]), "holds 2.5; ids must be whole numbers or text"),
        (pa.array([1.0, 3.0, float("inf"), 4.0]), "row 3: column 'item_id' holds inf; ids must be"),
        (
            pa.array([1.0, 2.0**53, 3.0, 4.0]),
            "row 2: column 'item_id' holds 9007199254740992.0; double",
        ),
        (pa.array([1.0, 2.0**24, 3.0], pa.float32()), "holds 16777216.0; float is not exact there"),
        (pa.array([Decimal("1.5"), Decimal(2), Decimal(3), Decimal(4)]), "holds 1.5; ids must be"),
        (pa.array([True, False, True, False]), "holds bool; ids must be"),
        (pa.array([1, 2, 3, 4], pa.date32()), "holds date32"),
        (pa.array([[1], [2], [3], [4]]), "holds list"),
        (pa.array([b"\xff", b"a", b"b", b"c"]), "is not UTF-8 text"),
    ],
    ids=str,
)
def test_no_ids(tmp_path: Path, items: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match="item_id") as caught:
        load_dataset(write_parquet(tmp_path / "x.parquet", items))
    assert message in str(caught.value)


UNKNOWN = [
    *(
        "²",
        "99999999999999999999",
        "+5",
        " 5",
        "5 ",
        "5.0",
        "1_000",
        "",
        "-",
        "--5",
        "05",
        "٥",
        "5e0",
    ),
    *(
        "abcdefg",
        "\udcff",
        "9" * 5000,
        99999999999999999999,
        -(10**30),
        6,
        -5,
        2.5,
        None,
        True,
        b"5",
    ),
    *([5], {"a": 1}, float("nan"), np.float64(2.5), np.True_),
]


@pytest.mark.parametrize("raw", UNKNOWN, ids=lambda raw: repr(raw)[:25])
@pytest.mark.parametrize(
    "ids", [[1, 5, 1000], [1, 5, 2**64 - 1], ["1", "5", "abcde"]], ids=["int64", "uint64", "text"]
)
def test_unknown_items(ids: list, raw: object) -> None:
    vocabulary = Vocabulary(ids)
    with pytest.raises(DataError, match="is unknown") as caught:
        vocabulary.encode([ids[0], raw])
    assert "\n" not in str(caught.value)
    assert vocabulary.find([raw, ids[1]]).tolist() == [0, 2]


def test_many_unknown_items() -> None:
    """Many at once are found in another way than a few."""
    names = [f"n{number:05d}" for number in range(3000)]
    words = Vocabulary(names[::2])
    expected = [number // 2 + 1 if number % 2 == 0 else 0 for number in range(3000)]
    assert words.find(names).tolist() == expected
    assert words.find(names[:500]).tolist() == expected[:500]
    with pytest.raises(DataError, match="'n00001' is unknown to this catalogue of 1500 items"):
        words.encode(names)


@pytest.mark.parametrize(
    "ids",
    [
        [-5, 0, 7],
        [0, 2**53, 2**53 + 1, 2**63 - 1],
        [0, 2**63, 2**64 - 2, 2**64 - 1],
        [-(2**63), 2**63 - 1],
        ["07", "7", "é", "日本"],
        ["a", "a\0", "ab", "x" * 40_000],
    ],
    ids=lambda ids: repr(ids)[:30],
)
def test_vocabularies_survive_being_saved(tmp_path: Path, ids: list) -> None:
    vocabulary = Vocabulary(ids)
    vocabulary.save(tmp_path / "items.json")
    back = Vocabulary.load(tmp_path / "items.json")
    assert back.equals(vocabulary)
    assert back.digest() == vocabulary.digest()
    for one in (vocabulary, back):
        assert one.decode(range(1, len(ids) + 1)) == ids
        assert one.encode(ids).tolist() == list(range(1, len(ids) + 1))
        assert one.encode(map(str, ids)).tolist() == list(range(1, len(ids) + 1))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([2, 1], "ids must ascend"),
        ([1, 1], "ids must ascend"),
        (["b", "a"], "ids must ascend"),
        ([1, "a"], "neither a whole number nor text"),
        ([1.0, 2.0], "neither a whole number nor text"),
        ([True], "neither a whole number nor text"),
        ([None], "neither a whole number nor text"),
        ([-1, 2**63], "do not fit 64 bits"),
        ([2**64], "do not fit 64 bits"),
        (["\ud800"], "UTF-8"),
    ],
    ids=repr,
)
def test_no_vocabularies(tmp_path: Path, ids: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(ids)
    (tmp_path / "items.json").write_text(json.dumps(ids))
    with pytest.raises(DataError, match=r"items\.json is no list of items"):
        Vocabulary.load(tmp_path / "items.json")


def test_a_vocabulary_of_numbers_and_one_of_text_meet(tmp_path: Path) -> None:
    """A file with one name in it makes all ids text; one without has the same items as numbers."""
    words = load_dataset(write_text(tmp_path / "a.csv", four_of(["10", "9", "A1", "3"])))
    numbers = load_dataset(write_text(tmp_path / "b.csv", four_of(["9", "10", "3", "10"])))
    moved = numbers.with_vocabulary(words.vocabulary)
    assert words.vocabulary.decode(moved.train.items[:4]) == ["9", "10", "3", "10"]
    assert moved.train.items is moved.test.items
    with pytest.raises(DataError, match="'A1' is unknown: items are whole numbers here"):
        words.with_vocabulary(numbers.vocabulary)


@pytest.mark.parametrize("rows", [[0], [4], [-1], [1, 2**40]])
def test_rows_without_item(rows: list[int]) -> None:
    with pytest.raises(DataError, match=r"rows of items are 1\.\.3"):
        Vocabulary([1, 2, 3]).decode(rows)
