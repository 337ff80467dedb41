"""``lares recommend``: what it takes, what it gives, and how it says no."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.cli import histories as command
from lares.cli import main
from lares.data.formats.text_lines import text_lines
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError
from tests.cli import failing

Packer = Callable[[bytes], bytes]

NAMES = [
    f'Duo {number:02d}, "Live"' if number % 3 else f"Solo {number:02d}" for number in range(20)
]
NUMBERS = list(range(5, 65, 3))


def save(folder: Path, ids: list | None) -> LaresModel:
    torch.manual_seed(1)
    vocabulary = None if ids is None else Vocabulary(np.array(sorted(ids)))
    config = LaresConfig(n_items=21, max_length=5, d_model=16, d_ff=24)
    model = LaresModel(config, vocabulary=vocabulary).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LaresModel]:
    folder = tmp_path_factory.mktemp("names")
    return str(folder), save(folder, NAMES)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LaresModel]:
    folder = tmp_path_factory.mktemp("numbers")
    return str(folder), save(folder, NUMBERS)


def zstd(content: bytes) -> bytes:
    found: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return found


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that the command prints."""
    return failing.fails(capsys, "recommend", *argv)


def lists(printed: str) -> list[list[str]]:
    """Output taken apart by a reader of CSV."""
    return list(csv.reader(io.StringIO(printed)))


def as_csv(histories: list[list], **options) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", **options).writerows(histories)
    return text.getvalue()


ASKED = [NAMES[:3], [NAMES[4]], [NAMES[3], NAMES[7]]]
FILES = {
    "plain": as_csv(ASKED).encode(),
    "with a byte order mark": as_csv(ASKED).encode("utf-8-sig"),
    "all quoted": as_csv(ASKED, quoting=csv.QUOTE_ALL).encode(),
    "of Windows": as_csv(ASKED).replace("\n", "\r\n").encode(),
    "without a last line break": as_csv(ASKED).rstrip("\n").encode(),
    "blanks after commas": as_csv(ASKED, quoting=csv.QUOTE_ALL).replace('","', '", "').encode(),
}


@pytest.mark.parametrize("kind", FILES)
def test_names_with_commas_go_in_and_come_out(kind: str, names, tmp_path: Path, capsys) -> None:
    folder, model = names
    file = tmp_path / "h.txt"
    file.write_bytes(FILES[kind])
    main(["recommend", folder, "--histories", str(file), "--k=4"])
    printed = capsys.readouterr().out
    assert lists(printed) == model.recommend(ASKED, 4)
    # What comes out goes in again.
    file.write_text(printed)
    main(["recommend", folder, "--histories", str(file), "--k=4"])
    assert lists(capsys.readouterr().out) == model.recommend(model.recommend(ASKED, 4), 4)


@pytest.mark.parametrize("spaces", ["5,8,11", "5, 8, 11", " 5 , 8 ,11 ", '"5","8",11'])
def test_numbers_on_the_command_line(spaces: str, numbers, capsys) -> None:
    folder, model = numbers
    main(["recommend", folder, "--history", spaces, "--k=3"])
    expected = model.recommend([[5, 8, 11]], 3)[0]
    assert capsys.readouterr().out == ",".join(map(str, expected)) + "\n"


def test_ids_with_line_breaks_and_blanks(tmp_path: Path, capsys) -> None:
    ids = [f"two\nlines {number}" for number in range(18)] + [" x", "x"]
    model = save(tmp_path / "model", ids)
    asked = [["two\nlines 1", " x"], ["x"]]
    file = tmp_path / "h.txt"
    file.write_text(as_csv(asked, quoting=csv.QUOTE_ALL))
    main(["recommend", str(tmp_path / "model"), "--histories", str(file), "--k=19"])
    printed = capsys.readouterr().out
    assert lists(printed) == model.recommend(asked, 19)
    again = csv.reader(
        io.StringIO(printed, newline=""), skipinitialspace=True
    )  # as histories are read
    assert [*again] == model.recommend(asked, 19)
    file.write_text('"two\nlines 1"\nno,thing\n')
    error = fails(capsys, str(tmp_path / "model"), "--histories", str(file))
    assert "h.txt, line 3: item 'no' is unknown" in error


@pytest.mark.parametrize("length", [131_072, 131_073, 1_500_000])
@pytest.mark.parametrize("letters", ["x", 'a, "b"\n', "日本"])
def test_long_ids_go_out_and_in(length: int, letters: str, tmp_path: Path, capsys) -> None:
    """The csv module by itself takes 131,072 letters; that limit is as before afterwards."""
    before = csv.field_size_limit()
    long = (letters * length)[:length]
    model = save(tmp_path / "model", [f"id {number}" for number in range(19)] + [long])
    file, asked = tmp_path / "h.txt", [["id 3"]]
    file.write_text("id 3\n")
    for _ in range(2):  # what comes out goes in again
        folder = str(tmp_path / "model")
        main(["recommend", folder, f"--histories={file}", "--k=20", "--keep_history"])
        printed = capsys.readouterr().out
        asked = model.recommend(asked, 20, remove_history=False)
        assert printed in (as_csv(asked), as_csv(asked, quoting=csv.QUOTE_ALL))
        assert csv.field_size_limit() == before
        file.write_text(printed, encoding="utf-8", newline="")


def test_the_same_history_gets_the_same_list(numbers, tmp_path: Path, capsys) -> None:
    file = tmp_path / "same.txt"
    file.write_text("5,8,11\n" * 3)
    main(["recommend", numbers[0], "--histories", str(file)])
    first, *others = capsys.readouterr().out.splitlines()
    assert others == [first, first]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("99999999999999999999", "--history: item 99999999999999999999 is unknown"),
        ("²", "--history: item '²' is unknown"),
        ("5,³", "--history: item '³' is unknown"),
        ("5.0", "--history: item '5.0' is unknown"),
        ("05", "--history: item '05' is unknown"),
        ("1e1", "--history: item '1e1' is unknown"),
        ("-5", "--history: item -5 is unknown"),
        ("6", "--history: item 6 is unknown to this catalogue of 20 items"),
        ("5,,8", "--history: '5,,8' is not a history"),
        ("5,", "is not a history"),
        (" ", "is not a history"),
        ("", "--history: '' is not a history"),
        ('"5,8', "--history: unexpected end of data"),
        ('"5"8', "--history: ',' expected after '\"'"),
        ("5\udcff", "unknown"),
    ],
)
def test_histories_that_cannot_be(history: str, message: str, numbers, capsys) -> None:
    assert message in fails(capsys, numbers[0], f"--history={history}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"5\n\n8\n", "line 2: '' is not a history"),
        (b"5\n8,,11\n", "line 2: '8,,11' is not a history"),
        (b'5\n"8\n11\n', "line 2: unexpected end of data"),
        (b'5\n"8"x,11\n', "line 2: ',' expected"),
        (b"", "holds no history"),
        (b"\xff\xfe5\x00", "line 1: the file is UTF-16; convert the file first"),
        (b"5\n\xff\n", "line 2: byte 0xff is not UTF-8; convert"),
        (gzip.compress(b"5\n", mtime=0), "compressed with gzip; its name must end in .gz"),
        (zstd(b"5\n"), "compressed with Zstandard; its name must end in .zst"),
    ],
)
def test_files_that_cannot_be(content: bytes, message: str, numbers, tmp_path, capsys) -> None:
    file = tmp_path / "h.txt"
    file.write_bytes(content)
    assert message in fails(capsys, numbers[0], "--histories", str(file))


@pytest.mark.parametrize(
    ("name", "packed"),
    [("h.gz", gzip.compress), ("h.csv.GZ", gzip.compress), ("h.zst", zstd), ("h.txt.ZST", zstd)],
)
def test_compressed_files(name: str, packed: Packer, names, tmp_path: Path, capsys) -> None:
    folder, model = names
    file = tmp_path / name
    file.write_bytes(packed(FILES["with a byte order mark"]))
    main(["recommend", folder, "--histories", str(file), "--k=4"])
    assert lists(capsys.readouterr().out) == model.recommend(ASKED, 4)
    whole = packed(("5,8\n" * 100_000).encode())
    for broken in (b"5,8\n", whole[: len(whole) // 2], b"\x00" * 100):
        file.write_bytes(broken)
        assert f"{file} cannot be read" in fails(capsys, folder, "--histories", str(file))


def test_a_pipe_of_histories(names, tmp_path: Path, capsys) -> None:
    folder, model = names
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(FILES["plain"]))
    writer.start()
    main(["recommend", folder, f"--histories={tmp_path / 'pipe'}", "--k=4"])
    writer.join(10)
    assert lists(capsys.readouterr().out) == model.recommend(ASKED, 4)


def pipe_without_end(path: Path, begin: bytes, more: bytes) -> None:
    """Write ``begin`` to a new pipe, then ``more`` again and again while anybody reads."""
    os.mkfifo(path)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(path, "wb") as pipe:
            pipe.write(begin)
            while True:
                pipe.write(more)

    threading.Thread(target=write, daemon=True).start()


@pytest.mark.parametrize("place", ["/dev/zero", "pipe", "zeros.gz"])
def test_a_line_without_end(
    place: str, names, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_LONGEST_LINE", 1_000_000)
    file = tmp_path / place  # of /dev/zero itself
    if place == "pipe":
        pipe_without_end(file, b"5\n8,", b"1" * 1000)
    elif place == "zeros.gz":
        file.write_bytes(gzip.compress(b"5\n" + bytes(1_000_001)))
    elif not file.exists():
        pytest.skip("the system has no such device")
    line = 1 if place == "/dev/zero" else 2
    error = fails(capsys, names[0], f"--histories={file}")
    assert f"{file}, line {line} has more than 1,000,000 letters" in error


def test_a_quoted_id_without_end(numbers, tmp_path: Path, capsys, monkeypatch) -> None:
    """Of short lines, each of which would do."""
    monkeypatch.setattr(command, "_LONGEST_LINE", 1_000_000)
    pipe = tmp_path / "pipe"
    pipe_without_end(pipe, b'5\n8,"', b"11\n" * 100)
    error = fails(capsys, numbers[0], f"--histories={pipe}")
    assert f"{pipe}, line 2: the history has more than 1,000,000 letters" in error


def test_gzip_in_several_parts(names, tmp_path: Path, capsys) -> None:
    folder, model = names
    file = tmp_path / "h.gz"
    lines = FILES["plain"].splitlines(keepends=True)
    file.write_bytes(b"".join(gzip.compress(line) for line in lines))
    main(["recommend", folder, f"--histories={file}", "--k=4"])
    assert lists(capsys.readouterr().out) == model.recommend(ASKED, 4)


@pytest.mark.parametrize("content", ["x" * 999 + "\n", "x" * 1000])
def test_the_longest_line_is_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "h.txt").write_text(content)
    assert list(text_lines(tmp_path / "h.txt", 1000)) == [content]
    with pytest.raises(DataError, match="line 1 has more than 999 letters"):
        list(text_lines(tmp_path / "h.txt", 999))


BLANK = {
    "in between": ("5,8\n\n11\n", [[5, 8], [], [11]]),
    "first": ("\n5\n", [[], [5]]),
    "last": ("5\n\n", [[5], []]),
    "several": ("5\n\n \t \n\n8\n", [[5], [], [], [], [8]]),
    "quoted": ('5\n""\n8\n', [[5], [], [8]]),
    "of Windows": ("5\r\n\r\n8\r\n", [[5], [], [8]]),
    "nothing else": ("\n\n", [[], []]),
    "beside an unknown item": ("999\n\n5\n", [[], [], [5]]),
}


@pytest.mark.parametrize("kind", BLANK)
def test_a_blank_line_is_an_empty_history(kind: str, numbers, tmp_path: Path, capsys) -> None:
    """Where items may be left out; a line of what comes out is always that of what goes in."""
    content, asked = BLANK[kind]
    folder, model = numbers
    file = tmp_path / "h.txt"
    file.write_text(content, newline="")
    first = next(number for number, history in enumerate(asked, 1) if not history)
    error = fails(capsys, folder, f"--histories={file}")
    if kind == "beside an unknown item":
        first += 1
    assert f"{file}, line {first}: '' is not a history" in error
    assert "--unknown skip" in error
    main(["recommend", folder, f"--histories={file}", "--k=3", "--unknown=skip"])
    printed = capsys.readouterr()
    served = iter(model.recommend([history for history in asked if history], 3))
    expected = [",".join(map(str, next(served))) if history else "" for history in asked]
    assert printed.out == "".join(line + "\n" for line in expected)
    count = asked.count([]) - (kind == "beside an unknown item")
    assert f"note: {count} empty histor{'y' if count == 1 else 'ies'}: {file}, line" in printed.err


def test_an_empty_history_on_the_command_line(numbers, capsys) -> None:
    main(["recommend", numbers[0], "--history=", "--unknown=skip"])
    assert capsys.readouterr().out == "\n"
    assert "is not a history" in fails(capsys, numbers[0], "--history=,", "--unknown=skip")


def test_unknown_items_are_counted_and_placed(numbers, tmp_path: Path, capsys) -> None:
    folder, model = numbers
    file = tmp_path / "h.txt"
    file.write_text("5,8,11\n14,999\n6,7\n8,9\n17\n")
    error = fails(capsys, folder, "--histories", str(file))
    assert f"{file}, line 2: item 999 is unknown" in error
    assert "4 unknown items: '999'" in error
    assert "line 3), '7'" in error
    assert "--unknown skip" in error
    main(["recommend", folder, "--histories", str(file), "--unknown=skip", "--k=3"])
    printed = capsys.readouterr()
    expected = model.recommend([[5, 8, 11], [14], [8], [17]], 3)
    expected.insert(2, [])  # of line 3 nothing is left
    assert printed.out == "".join(",".join(map(str, items)) + "\n" for items in expected)
    assert "note: left out 4 unknown items: '999'" in printed.err
    file.write_text("5\n" + "1000\n" * 50)
    error = fails(capsys, folder, "--histories", str(file))
    assert "50 unknown items" in error
    assert error.count("'1000'") == 5
    main(["recommend", folder, "--history=999", "--unknown=skip"])
    assert capsys.readouterr().out == "\n"
    assert "--unknown is 'ignore'" in fails(capsys, folder, "--history=5", "--unknown=ignore")


def test_a_model_without_names(tmp_path: Path, capsys) -> None:
    model = save(tmp_path, None)
    main(["recommend", str(tmp_path), "--history=1,2,3", "--k=4"])
    found = capsys.readouterr().out.strip().split(",")
    assert [int(item) for item in found] == model.recommend([[1, 2, 3]], 4)[0]
    for item in ("0", "21", "²", "99999999999999999999", "x"):
        assert "is unknown" in fails(capsys, str(tmp_path), f"--history={item}")


def test_command_line_python_and_a_copy_agree(numbers, tmp_path: Path, capsys) -> None:
    folder, model = numbers
    LaresModel.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    expected = model.recommend([[5, 8, 11]], 3)[0]
    for place in (folder, str(tmp_path / "copy")):
        main(["recommend", place, "--history=5,8,11", "--k=3"])
        assert capsys.readouterr().out == ",".join(map(str, expected)) + "\n"
        assert LaresModel.from_pretrained(place).recommend([[5, 8, 11]], 3)[0] == expected


def test_closed_streams(numbers, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that go nowhere are an error; notes never go where lists do."""
    monkeypatch.setattr("sys.stdout", None)
    assert "standard output is closed" in fails(capsys, numbers[0], "--history=5")
    monkeypatch.undo()
    monkeypatch.setattr("sys.stderr", None)
    main(["recommend", numbers[0], "--history=5,999", "--unknown=skip", "--k=2"])
    with pytest.raises(SystemExit) as caught:
        main(["recommend", numbers[0], "--history=999"])
    assert caught.value.code == 2
    assert len(lists(capsys.readouterr().out)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_for_messages(numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        with pytest.raises(SystemExit) as caught:
            main(["recommend", numbers[0], "--history=999"])
        assert caught.value.code == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


@pytest.mark.parametrize("content", ["3,4\n5,,6\n", '3,4\n"5\n', '3\n"4"x\n'])
def test_a_place_is_named_once(content: str, tmp_path: Path) -> None:
    path = tmp_path / "histories.csv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(command.read_histories(None, str(path)))
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert str(caught.value).count(str(path)) == 1
