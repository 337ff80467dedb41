"""CSV as programs write it: delimiters, quotes, line breaks, blanks, compression, parts; bad files."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest

from lares.data import load_dataset
from lares.data.formats.delimited import DelimitedTable
from lares.errors import DataError
from tests.data.tables import HEADER, four_of, history, items_of, write_text

ROWS = [("u", item, time) for time, item in enumerate(["b", "a", "d", "c"])]
ITEMS = ["b", "a", "d", "c"]
DELIMITERS = [",", ";", "\t", "|", "::"]


def text_of(rows, delimiter: str = ",", quote: bool = False) -> str:
    cell = '"{}"'.format if quote else str
    return "".join(delimiter.join(map(cell, row)) + "\n" for row in rows)


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("quote", [False, True], ids=["plain", "quoted"])
@pytest.mark.parametrize(
    ("end", "last", "mark"),
    [
        ("\n", "\n", b""),
        ("\n", "", b"\xef\xbb\xbf"),
        ("\r\n", "\r\n", b"\xef\xbb\xbf"),
        ("\r\n", "", b""),
    ],
    ids=["lf", "lf-bom-cut", "crlf-bom", "crlf-cut"],
)
def test_dialects(
    tmp_path: Path, delimiter: str, quote: bool, end: str, last: str, mark: bytes
) -> None:
    path = tmp_path / ("x.tsv" if delimiter == "\t" else "x.csv")
    text = text_of([HEADER, *ROWS], delimiter, quote).rstrip().replace("\n", end) + last
    path.write_bytes(mark + text.encode())
    dataset = load_dataset(path)
    assert items_of(dataset) == ITEMS
    shown = "tab" if delimiter == "\t" else repr(delimiter)
    assert dataset.source["format"] == f"CSV, delimiter {shown}"


@pytest.mark.parametrize(
    "text",
    [
        "user_id, item_id, timestamp\nu, b, 0\nu, a, 1\nu, d, 2\nu, c, 3\n",
        'user_id, "item_id", timestamp\nu, "b", 0\nu, "a", 1\nu, "d", 2\nu, "c", 3\n',
        "user_id ,item_id , timestamp \nu ,b , 0 \nu ,a , 1\nu ,d ,2\n u ,c ,3\n",
        "user_id,\titem_id,timestamp\nu,\tb,0\nu,a,1\nu,d,2\nu,c,3\n",
        "\nuser_id,item_id,timestamp\n\nu,b,0\nu,a,1\n\n\nu,d,2\nu,c,3\n\n",
        'user_id,item_id,timestamp,"a note"\nu,b,0,"x, y"\nu,a,1,"x ""y"" z"\nu,d,2,\nu,c,3,"\n\n"\n',
        "timestamp,,item_id,user_id,\n0,1,b,u,\n1,2,a,u,\n2,3,d,u,\n3,4,c,u,\n",
        "item_id,user_id,timestamp,Item_id,ITEM_ID\nb,u,0,x,y\na,u,1,x,y\nd,u,2,x,y\nc,u,3,x,y\n",
        "user_id,item_id,timestamp,note\nu,b,0,it's\nu,a,1,5\" disk\nu,d,2,a\\b\nu,c,3,#\n",
    ],
    ids=range(9),
)
def test_oddities(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert history(tmp_path / "x.csv") == ITEMS


@pytest.mark.parametrize("quoted", [True, False])
def test_cells_are_kept_to_the_letter(tmp_path: Path, quoted: bool) -> None:
    names = [
        "Duo 3, Live",
        'say "x"',
        "two\nlines",
        "two\r\nlines",
        "a;b|c\td::e",
        "'",
        "\\",
        "#1",
        "é日本\0",
    ]
    rows = [("u", name, time) for time, name in enumerate(names)]
    file = io.StringIO()
    out = csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    out.writerows([HEADER, *rows])
    (tmp_path / "x.csv").write_bytes(file.getvalue().encode())
    assert history(tmp_path / "x.csv") == names


def test_long_cells_with_line_breaks(tmp_path: Path) -> None:
    """Cells of a few bytes to 5 MB, whose lines look like rows."""
    file = io.StringIO()
    out = csv.writer(file)
    out.writerow([*HEADER, "review"])
    for place in range(2000):
        size = {100: 5_000_000, 1500: 1_000_000}.get(place, place)
        out.writerow(["u", place * 7 % 2000, place, ("u,1,2,x\n" * (size // 8 + 1))])
    (tmp_path / "x.csv").write_text(file.getvalue())
    assert history(tmp_path / "x.csv") == [place * 7 % 2000 for place in range(2000)]


@pytest.mark.parametrize(
    "name",
    [
        "x.CSV",
        "x.csv.gz",
        "x.CSV.GZ",
        "x.csv.zst",
        "x.TSV",
        "x.tsv.gz",
        "a[1]*?.csv",
        "ä b'\"{c,d}.csv",
    ],
)
def test_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = text_of([HEADER, *ROWS], "\t" if "tsv" in name.lower() else ",").encode()
    if name.lower().endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    (tmp_path / "a1xx.csv").write_text(
        "user_id,item_id\nwrong,file\n"
    )  # which a pattern would find
    dataset = load_dataset(path)
    assert items_of(dataset) == ITEMS
    assert dataset.name == name.split(".")[0]


def test_a_folder_of_parts(tmp_path: Path) -> None:
    rows = four_of([f"i{place}" for place in range(12)])
    for part in range(12):
        header = HEADER if part % 2 else HEADER[::-1]
        mine = [row if part % 2 else row[::-1] for row in rows[part * 2 : part * 2 + 2]]
        write_text(tmp_path / "set" / f"part-{part}.csv", mine, header=header)
    (tmp_path / "set" / "_SUCCESS").write_text("")
    (tmp_path / "set" / ".part.crc").write_text("")
    whole = load_dataset(write_text(tmp_path / "x.csv", rows))
    parts = load_dataset(tmp_path / "set")
    assert parts.digest() == whole.digest()
    assert parts.source["format"] == "CSV, delimiter ',', 12 files"
    ordered = load_dataset(tmp_path / "set", time_column="")
    assert ordered.digest() == whole.digest()  # part-2 comes before part-10
    write_text(tmp_path / "set" / "part-10.csv", [("u", "", 3)])
    with pytest.raises(DataError, match=r"part-10\.csv, line 2: column 'item_id' is empty"):
        load_dataset(tmp_path / "set")
    write_text(tmp_path / "set" / "part-10.csv", [("u", "x")], header=HEADER[:2])
    with pytest.raises(DataError, match=r"part-10\.csv has other columns than part-0\.csv"):
        load_dataset(tmp_path / "set")
    (tmp_path / "set" / "part-10.csv").unlink()
    (tmp_path / "set" / "part-10.parquet").write_text("")
    with pytest.raises(DataError, match="holds both CSV and Parquet"):
        load_dataset(tmp_path / "set")


BAD = [
    ("user_id,item_id\n1,2\n1\n", "x.csv, line 3: the row has 1 cell; the header has 2"),
    ("user_id,item_id\n1,2\n1,2,3\n", "x.csv, line 3: the row has 3 cells; the header has 2"),
    (
        'user_id,item_id,n\n1,2,"a\nb\n\nc"\n\n1,2\n',
        "x.csv, line 7: the row has 2 cells; the header has 3",
    ),
    ('user_id,item_id,n\n1,2,"a\nb\n\nc"\n\n1,,5\n', "x.csv, line 7: column 'item_id' is empty"),
    ('user_id,item_id,n\r\n1,2,"a\r\nb"\r\n1,,5\r\n', "x.csv, line 4: column 'item_id' is empty"),
    ('user_id,item_id,timestamp\n1,"a\nb",2\n1,2,x\n', "x.csv, line 4: 'x' is no time"),
    ('"user_id","item_id","a\nb"\n1,2,3\n1,,3\n', "x.csv, line 4: column 'item_id' is empty"),
    ('user_id,item_id\n1,2\n1,"a\n1,3\n', "x.csv, line 3: "),
    ('user_id,item_id\n1,2\n1,"a"b\n1,3\n', "x.csv, line 3: "),
    ("user_id,item_id\n\n1,2\n\n\n1, \n", "x.csv, line 6: column 'item_id' is empty"),
    ('user_id,item_id\n1,2\n1,""\n', "x.csv, line 3: column 'item_id' is empty"),
    ("user_id,item_id,item_id\n1,2,3\n", "x.csv has two columns called 'item_id'"),
    ("user_id,item_id,x, x\n1,2,3,4\n", "x.csv has two columns called 'x'"),
    (
        "user,item\n1,2\n",
        "x.csv has no column 'user_id', 'item_id'; its columns are 'user', 'item'",
    ),
    (
        "user;item\n1;2\n",
        "x.csv has no column 'user_id', 'item_id'; its columns are 'user', 'item'",
    ),
    ("", "x.csv is empty"),
    ("\n\n", "x.csv has no column"),
    ("user_id,item_id\n", "x.csv holds no interaction"),
    ("user_id,item_id", "x.csv holds no interaction"),
    (b"user_id,item_id\n1,2\n1,caf\xe9\n", "x.csv, line 3: byte 0xe9 is not UTF-8"),
    (b"user_id,item_id,n\n1,2,caf\xe9\n1,3,\n", "x.csv, line 2: byte 0xe9 is not UTF-8"),
    (b'user_id,item_id\n1,"a\n\nb"\n1,caf\xe9\n', "x.csv, line 5: byte 0xe9 is not UTF-8"),
    (b"user_id,it\xe9m_id\n1,2\n", "x.csv, line 1: byte 0xe9 is not UTF-8"),
    ("user_id,item_id\n1,2\n".encode("utf-16"), "x.csv, line 1: the file is UTF-16"),
    (
        gzip.compress(b"user_id,item_id\n", mtime=0),
        "x.csv, line 1: the file is compressed with gzip",
    ),
    (
        pa.compress(b"user_id,item_id\n", "zstd", asbytes=True),
        "x.csv, line 1: the file is compressed with Zstandard; its name must end in .zst",
    ),
    (b"PK\x03\x04\xff\xff", "x.csv, line 1: the file is a zip archive"),
    (b"PAR1\x15\xff", "x.csv, line 1: the file is Parquet"),
    # Cells beyond the header's, whatever they hold.
    *(
        (
            f"user_id,item_id,n\n1,2,3\n1,5,{'a' * 9}\n\n1,2,3{more}\n1,4,3\n",
            f"x.csv, line 5: the row has {3 + more.count(',')} cells; the header has 3",
        )
        for more in (",", ",,", ",,,,", ", ", ',""', ',"",""', ",,x", ",x,", ",0")
    ),
    ("user_id,item_id,n\n1,2,,\n", "x.csv, line 2: the row has 4 cells; the header has 3"),
    ("user_id,item_id,n\n1,2,3\n1,2,,,", "x.csv, line 3: the row has 5 cells; the header has 3"),
    (
        'user_id,item_id,n\n1,2,"a\nb"\n1,2,"a\nb",,\n',
        "x.csv, line 4: the row has 5 cells; the header has 3",
    ),
    ("user_id;item_id\r\n1;2\r\n1;2;\r\n", "x.csv, line 3: the row has 3 cells; the header has 2"),
    (
        "user_id::item_id\n1::2\n1::2::::\n",
        "x.csv, line 3: the row has 4 cells; the header has 2",
    ),
]


@pytest.mark.parametrize(
    ("text", "message", "packed"),
    [(*case, False) for case in BAD] + [(*case, True) for case in BAD[::4]],
)
def test_bad_files(tmp_path: Path, text: str | bytes, message: str, packed: bool) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    name = "x.csv.gz" if packed and data else "x.csv"
    (tmp_path / name).write_bytes(gzip.compress(data) if packed and data else data)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / name)
    assert message.replace("x.csv", name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"user_id,item_id\n1,2\n", gzip.compress(b"u" * 1000, mtime=0)[:20]]
)
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_not_compressed(tmp_path: Path, data: bytes, suffix: str) -> None:
    (tmp_path / f"x.csv.{suffix}").write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.csv\.{suffix} cannot be read"):
        load_dataset(tmp_path / f"x.csv.{suffix}")


def test_line_numbers_far_down(tmp_path: Path) -> None:
    """Past the first of the pieces that are parsed at once."""
    rows = [("u", f"item number {n}", n, "a\nb" if n % 3 == 0 else "") for n in range(60_000)]
    file = io.StringIO()
    out = csv.writer(file)
    out.writerows([[*HEADER, "note"], *rows])
    text = file.getvalue()
    (tmp_path / "x.csv").write_text(text + "u,x,noon,\n")
    line = text.count("\n") + 1
    with pytest.raises(DataError, match=f"line {line}: 'noon' is no time"):
        load_dataset(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text(text + "u,x\n")
    with pytest.raises(DataError, match=f"line {line}: the row has 2 cells"):
        load_dataset(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(text.encode() + b"u,\xff,1,\n")
    with pytest.raises(DataError, match=f"line {line}: byte 0xff"):
        load_dataset(tmp_path / "x.csv")


def test_rows_keep_their_order(tmp_path: Path) -> None:
    """Of several megabytes, which more than one thread reads."""
    numbers = [n * 7919 % 300_007 for n in range(300_000)]
    text = "user_id,item_id,pad\n" + "".join(f"1,{n},{'x' * 40}\n" for n in numbers)
    (tmp_path / "x.csv").write_text(text)
    table = DelimitedTable(tmp_path / "x.csv").read(["item_id"])
    assert table.column("item_id").to_pylist() == [str(n) for n in numbers]


def test_a_given_delimiter_is_taken_at_its_word(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x.csv", ROWS, ";")
    with pytest.raises(DataError, match="its columns are 'user_id;item_id;timestamp'"):
        load_dataset(path, delimiter=",")
    path = write_text(tmp_path / "x.csv", ROWS, "~")
    assert history(path, delimiter="~") == ITEMS
    path = write_text(tmp_path / "x.csv", ROWS, "\t")
    for name in ("tab", "\\t", "\t"):
        assert DelimitedTable(path, delimiter=name).names == list(HEADER)
    assert history(path, delimiter="tab") == ITEMS
    for bad in ("", '"', "a\n"):
        with pytest.raises(DataError, match="it must stand between cells"):
            load_dataset(path, delimiter=bad)
    atomic = write_text(tmp_path / "x.inter", ROWS, ",", [f"{name}:token" for name in HEADER])
    assert history(atomic, delimiter=",") == ITEMS


def test_folders_with_an_equals_sign_name_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "c1=7" / "item_id=8"
    folder.mkdir(parents=True)
    path = folder / "x.csv"
    path.write_text("user_id,item_id\n1,1\n1,2\n1,3\n1,4\n")
    assert load_dataset(path).vocabulary.ids.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "header", "delimiter", "width"),
    [("u.data", None, "\t", 4), ("x.inter", "user_id:token\titem_id:token\n", "\t", 2)],
)
@pytest.mark.parametrize("more", [1, 2])
def test_cells_beyond_the_columns_of_other_forms(
    tmp_path: Path, name: str, header: str | None, delimiter: str, width: int, more: int
) -> None:
    row = delimiter.join("1" * width)
    path = tmp_path / name
    path.write_text((header or "") + f"{row}\n" * 4 + row + delimiter * more + "\n")
    line = 5 + (header is not None)
    with pytest.raises(DataError, match=f"line {line}: the row has {width + more} cells; "):
        load_dataset(path)


def test_empty_last_cells_are_cells(tmp_path: Path) -> None:
    """They are read as they are by whichever of the two readers."""
    rows = "".join(f"u,{item},\n" for item in ITEMS[:3]) + f'u,{ITEMS[3]},""\n'
    (tmp_path / "x.csv").write_text("user_id,item_id,note\n" + rows)
    (tmp_path / "y.csv").write_text("user_id,item_id,\n" + rows)
    assert history(tmp_path / "x.csv") == history(tmp_path / "y.csv") == ITEMS
