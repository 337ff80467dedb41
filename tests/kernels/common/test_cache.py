"""Where the cache folder is, and that nothing fails where there cannot be one."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lares_kernels.binding import built
from lares_kernels.common import verdicts
from lares_kernels.common.cache import NOWHERE, cache_folder
from lares_kernels.common.verdicts import Verdict

IDENTITY = {"backend": "cpu"}
VERDICT = Verdict("k", "d", {"x": 1e-6}, {"x": 1e-5}, 0.5)


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home folder; gives the folder of temporary files."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LARES_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_variable_and_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/some/where")
    monkeypatch.setenv("LARES_CACHE", "")
    assert cache_folder() == Path("/some/where/.cache/lares")
    monkeypatch.setenv("LARES_CACHE", "/else/where")
    assert cache_folder() == Path("/else/where")


def test_without_a_home_the_temporary_folder_keeps(homeless: Path) -> None:
    assert cache_folder() == cache_folder() == homeless / f"lares-{os.getuid()}"
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    verdicts.store(IDENTITY, VERDICT)
    assert verdicts.stored(IDENTITY, VERDICT.bounds) == VERDICT


@pytest.mark.parametrize("kind", ["writable by all", "a link", "a file"])
def test_a_temporary_folder_that_others_may_have_made(homeless: Path, kind: str) -> None:
    folder = homeless / f"lares-{os.getuid()}"
    if kind == "a link":
        (homeless / "theirs").mkdir()
        folder.symlink_to(homeless / "theirs")
    elif kind == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert cache_folder() == NOWHERE


@pytest.mark.parametrize("where", ["nowhere", "a file", "no folder for temporary files"])
def test_where_nothing_can_be_kept_nothing_fails(
    where: str,
    homeless: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if where == "a file":
        (homeless / "file").write_text("")
        monkeypatch.setenv("LARES_CACHE", str(homeless / "file"))
    elif where == "nowhere":
        monkeypatch.setenv("LARES_CACHE", str(NOWHERE))
    else:

        def none_usable() -> str:
            raise FileNotFoundError("No usable temporary directory found")

        monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    verdicts.store(IDENTITY, VERDICT)
    assert verdicts.stored(IDENTITY, VERDICT.bounds) is None
    library = homeless / "liblares_cpu.so"
    built.note_of(library).write_text("failed: g++ is ill")
    built.say_once(library)
    assert "g++ is ill" in capsys.readouterr().err


def test_writers_of_a_shared_home_write_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of two machines that have the same process number; and half a verdict is none."""
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    replace, partial = os.replace, []

    def while_another_writes(source: Path, target: Path) -> None:
        partial.append(Path(source).name)
        if len(partial) < 3:
            if len(partial) == 2:
                monkeypatch.setattr(platform, "node", lambda: "an/other.host")
            verdicts.store(IDENTITY, VERDICT)
        assert json.loads(Path(source).read_text())["identity"] == IDENTITY
        replace(source, target)

    monkeypatch.setattr(os, "replace", while_another_writes)
    verdicts.store(IDENTITY, VERDICT)
    assert len(set(partial)) == 3
    assert all("4711" in name and name.endswith(".part") for name in partial)
    assert platform.node().replace("/", "_") in partial[2]
    assert [path.suffix for path in (tmp_path / "self-check").iterdir()] == [".json"]
    assert verdicts.stored(IDENTITY, VERDICT.bounds) == VERDICT


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_writer_that_is_stopped_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))

    def stops(source: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(os, "replace", stops)
    told = pytest.raises(KeyboardInterrupt)
    with contextlib.nullcontext() if isinstance(error, OSError) else told:
        verdicts.store(IDENTITY, VERDICT)
    assert [*(tmp_path / "self-check").iterdir()] == []


def test_what_killed_writers_left_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is too old to be another's who is still writing, whatever machine that is on."""
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    folder = tmp_path / "self-check"
    folder.mkdir()
    names = ["0123.4711.part", "0123.host.12.ab.part", "0123.json", "mine.txt"]
    for name in names:
        (folder / name).write_text("half")
    verdicts.store(IDENTITY, VERDICT)
    assert {path.name for path in folder.iterdir()} > set(names)
    for name in names:
        os.utime(folder / name, (1e9, 1e9))
    verdicts.store(IDENTITY, VERDICT)
    assert not [*folder.glob("*.part")]
    assert {path.name for path in folder.iterdir()} > {"0123.json", "mine.txt"}


UNKNOWN_USER = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
from lares_kernels import CoreConfig, RecurrentCore
import torch
RecurrentCore(CoreConfig(8, 1, 8, 1))(torch.zeros(1, 2, 8), num_steps=1)
from lares.cli import main
main(["doctor"])
"""


def test_a_user_whom_the_system_does_not_know(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "LARES_CACHE")}
    environment |= {"TMPDIR": str(tmp_path), "LARES_SELF_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", UNKNOWN_USER],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / f"lares-{os.getuid()}") in done.stdout
