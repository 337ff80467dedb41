"""Ids, columns and files of any letters, in every locale: no command raises, none writes wrong bytes.

Each locale has one process, which runs all command lines: what is not ASCII reaches it as bytes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lares.cli.output import is_utf8, takes_any_text
from lares.files import named_in_utf8
from lares.names import as_typed, one_line, shell_word, shown, utf8_name

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="names of files are text on other systems"
)
ITEMS = ["日本", "b", "é", "Duo 3, Live", "e"]
NOT_UTF8 = "caf\udce9"  # é in Latin-1, as Python has such names
LOCALES = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "ASCII output": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    "Latin-1 output": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
SMALL = (
    "--model.d_model=8 --model.d_ff=8 --model.max_length=4 --optimizer.batch_size=64 "
    "--trainer.num_threads=1 --trainer.accelerator=cpu --trainer.max_epochs=1 "
    "--trainer.test_depths=[1]"
).split()
# Runs command lines, words with NUL between them, and says how each ended.
PROGRAM = """
import os, sys, traceback
from lares.cli import main
for line in open("commands", "rb").read().split(b"\\n"):
    try:
        main([os.fsdecode(word) for word in line.split(b"\\0")])
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = "raised"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.write(stream.fileno(), f"=== {code}\\n".encode())
"""


def make(folder: Path) -> None:
    rows = [(f"u{user}", item, place) for user in range(6) for place, item in enumerate(ITEMS)]
    names = ("user_id", "item_id", "día")
    table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    for path in (f"{NOT_UTF8}.csv", "日本.csv", f"{NOT_UTF8}/part-0.csv"):
        (folder / path).parent.mkdir(exist_ok=True)
        lines = [",".join(names), *(f'{u},"{i}",{p}' for u, i, p in rows)]
        (folder / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in (f"{NOT_UTF8}.parquet", "日本.parquet"):
        with open(folder / path, "wb") as file:
            pq.write_table(table, file)
    (folder / f"{NOT_UTF8}.yaml").write_text("data: {time_column: día}\n", encoding="utf-8")
    (folder / f"{NOT_UTF8}.txt").write_text('é,"Duo 3, Live"\n日本\n', encoding="utf-8")


def ran(
    folder: Path, environment: dict[str, str], *commands: list[str]
) -> list[tuple[str, bytes, bytes]]:
    """How command lines end, and what each prints."""
    lines = [b"\0".join(map(os.fsencode, command)) for command in commands]
    (folder / "commands").write_bytes(b"\n".join(lines))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        check=True,
    )
    out, err = done.stdout.split(b"=== "), done.stderr.split(b"=== ")
    assert len(out) == len(err) == len(commands) + 1, done.stderr.decode(errors="replace")
    codes = [piece.split(b"\n")[0].decode() for piece in out[1:]]
    printed = [[piece.partition(b"\n")[2] for piece in stream[:-1]] for stream in (out, err)]
    for stream, pieces in zip((out, err), printed, strict=True):
        pieces[0] = stream[0]
    return list(zip(codes, *printed, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "ASCII",
        "ASCII output",
        pytest.param("UTF-8", marks=pytest.mark.long),
        pytest.param("Latin-1 output", marks=pytest.mark.long),
    ],
)
def test_every_command(name: str, tmp_path: Path) -> None:
    make(tmp_path)
    run, time = NOT_UTF8 + " run", ["--data.time_column", "día"]
    info = [
        ["data", "info", path, *time]
        for path in (
            f"{NOT_UTF8}.csv",
            f"{NOT_UTF8}.parquet",
            NOT_UTF8,
            "日本.csv",
            "日本.parquet",
        )
    ]
    train = [
        ["train", f"{NOT_UTF8}.csv", "--out", run, "--config", f"{NOT_UTF8}.yaml", *SMALL],
        ["train", "--out", run, "--resume"],
        ["evaluate", run, f"{NOT_UTF8}.parquet", "--depths=1", "--output", f"{NOT_UTF8}.json"],
    ]
    recommend = [
        ["recommend", run, "--history", 'é,"Duo 3, Live"', "--k=5", "--keep_history"],
        ["recommend", run, "--histories", f"{NOT_UTF8}.txt", "--k=5", "--keep_history"],
        ["recommend", run, "--history", "ñ", "--unknown=skip", "--emptied=popular", "--k=5"],
    ]
    fails = [
        ["recommend", run, "--history", "ñ"],
        ["recommend", run, "--history", "\udce9"],
        ["recommend", "none \udce9", "--history", "é"],
        ["evaluate", run, "none \udce9 日本"],
        ["data", "info", "日本.csv", "--data.time_column", "\udce9日"],
        ["data", "info", "日本.csv", "--delimiter", "\udce9"],
        ["data", "get", "日本", "\udce9"],
        ["train", "日本.csv", "--config", "none \udce9"],
        ["train", "日本.csv", "--model.d_model", "日\udce9"],
        ["train", "日本.csv", "--out", run, *SMALL],
        ["train", "日本.csv", "--日本\udce9"],
        ["train", "日本.csv", "--model.text_features", "\udce9.npy", *SMALL],
        ["demo", "--out", f"{NOT_UTF8}.csv"],
        ["日本\udce9"],
    ]
    found = ran(tmp_path, LOCALES[name], *info, *train, *recommend, *fails)
    for command, (code, out, err) in zip([*info, *train, *recommend, *fails], found, strict=True):
        assert code == ("2" if command in fails else "0"), (command, err)
        assert b"Traceback" not in err
        if command in fails:
            assert err.startswith(b"error: ")
            assert err.count(b"\n") == 1
        elif command[0] == "recommend":
            assert sorted(out.decode().splitlines()[0]) == sorted('日本,b,é,"Duo 3, Live",e')
        elif command[0] != "evaluate":
            assert b"caf\xe9" in out or command[2].startswith("日本")
    assert (tmp_path / f"{NOT_UTF8}.json").is_file()
    assert list((tmp_path / run / "tensorboard").glob("events.*"))
    one, several = (found[len(info) + len(train) + place][1] for place in (0, 1))
    assert several.splitlines()[0] == one.strip()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252", "utf-16-le"])
def test_output_takes_any_text(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    text = "aé日\U0001f600\udce9\ud800\n"
    with takes_any_text():
        print(text, end="")
        with is_utf8():
            print("é日", end="")
        print(text, end="")
    assert (stream.encoding, stream.errors) == (encoding, "strict")
    stream.flush()
    shown = stream.buffer.getvalue()
    parts = shown.split("é日".encode()) if "utf-8" not in encoding else [shown]
    assert all(text.encode(encoding, "ignore")[:1] == part[:1] for part in parts)
    if encoding == "ascii":
        assert parts == [b"a\\xe9\\u65e5\\U0001f600\xe9\\ud800\n"] * 2
    if encoding == "utf-8":
        whole = "aé日\U0001f600".encode() + b"\xe9\\ud800\n"
        assert shown == whole + "é日".encode() + whole


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_output_that_has_no_encoding(stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    with takes_any_text(), is_utf8():
        print("日")


@pytest.mark.parametrize(
    "word", ["a", "a b", "é日", "it's", "caf\udce9", "a'\\b \udce9\udcff$x\n", "\tab", "\x1b[1m"]
)
def test_a_shell_reads_words_as_they_are(word: str) -> None:
    command = f"printf %s {shell_word(word)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)


def test_names_and_arguments(tmp_path: Path) -> None:
    assert utf8_name("日") == "日"
    assert utf8_name("\udce9") is None
    assert as_typed(os.fsencode("日").decode("ascii", "surrogateescape")) == "日"
    for same in ("日", "a", "", "\udce9", "日\udce9"):
        assert as_typed(same) == same
    for name in ("a.txt", "\udce9.txt"):
        (tmp_path / name).write_text(name, errors="replace")
        with named_in_utf8(tmp_path / name) as path:
            assert path.suffix == ".txt"
            assert path.read_bytes() == (tmp_path / name).read_bytes()
            str(path).encode()
        assert path.exists() == (name == "a.txt")


def test_messages_are_one_line_that_steers_no_terminal() -> None:
    assert one_line("é日 ok\n") == "é日 ok "
    assert one_line("a\nb\rc\x1b[31m\u202e\udce9\0") == "a b\\rc\\x1b[31m\\u202e\\udce9\\x00"
    assert shown("x" * 10) == "'xxxxxxxxxx'"
    assert shown("x" * 1000).endswith("... (1,002 letters)")
    assert len(shown("x" * 10**6)) < 250
    assert "digits" in shown(10**5000)
