"""Files that are whole or not there, and what may not be replaced by one."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from lares import LaresConfig, LaresModel
from lares.data.vocabulary import Vocabulary
from lares.files import _new_file_beside, atomic_write, remove_unfinished, require_writable


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_is_honoured(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "new" / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == mode


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "x" + "語" * 84], ids=["x", "ä", "語"])
def test_the_longest_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert (tmp_path / name).read_text() == "new"
    temporary = os.fsencode(_new_file_beside(tmp_path / name).name)
    assert len(temporary) <= 255
    assert len(os.fsencode(name)) - len(temporary) < 3
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_is_honoured_in_a_saved_model(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        model = LaresModel(LaresConfig(5, d_model=8, d_ff=8), vocabulary=Vocabulary([1, 2, 3, 4]))
        model.save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    files = list((tmp_path / "model").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o666])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int, linked: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    (tmp_path / "link").symlink_to(path)
    with atomic_write(tmp_path / "link" if linked else path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == mode | 0o600
        temporary.write_text("new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for target, there in (("elsewhere/file", True), ("elsewhere/none", False)):
        link = tmp_path / f"to {there}"
        if there:
            (tmp_path / target).write_text("old")
        link.symlink_to(tmp_path / target)
        write(link)
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write(pipe, "through")
    reader.join(10)
    assert found == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_device_is_written_into() -> None:
    write(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("linked", [False, True])
def test_a_device_that_takes_no_more_is_named(tmp_path: Path, linked: bool) -> None:
    path = Path("/dev/full")
    if linked:
        path = tmp_path / "to it"
        path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write(path)
    assert caught.value.filename == str(path)


def test_standard_output_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with open(path, "w") as opened:
        opened.write("before\n")
        opened.flush()
        write(Path(f"/proc/self/fd/{opened.fileno()}"), "within\n")
    assert path.read_text() == "before\nwithin\n"


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_what_cannot_be_written_is_told_beforehand(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    path = {"folder": tmp_path, "below a file": tmp_path / "file" / "new"}[kind]
    for check in (require_writable, write):
        with pytest.raises(OSError):
            check(path)
    require_writable(tmp_path / "a" / "b" / "c")
    require_writable(Path("/dev/null"))
    assert not (tmp_path / "a").exists()


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".model.safetensors.0a1b2c3d.part"
    others = [tmp_path / "mine.part", tmp_path / ".holiday.mkv.part", tmp_path / "a" / left.name]
    others[-1].parent.mkdir()
    for path in (left, *others):
        path.touch()
    remove_unfinished(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in others)
