"""``lares recommend``: what it takes, what it gives, and how it says no."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.cli import main
from lares.cli.recommend import read_histories
from lares.data.vocabulary import Vocabulary
from lares.errors import DataError

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


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["recommend", *argv])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


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
        main(["recommend", str(tmp_path / "model"), f"--histories={file}", "--k=20", "--keep-seen"])
        printed = capsys.readouterr().out
        asked = model.recommend(asked, 20, remove_seen=False)
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
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_files_that_cannot_be(content: bytes, message: str, numbers, tmp_path, capsys) -> None:
    file = tmp_path / "h.txt"
    file.write_bytes(content)
    assert message in fails(capsys, numbers[0], "--histories", str(file))


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
        read_histories(None, str(path))
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert str(caught.value).count(str(path)) == 1
