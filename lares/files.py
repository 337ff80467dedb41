"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lares.errors import REFUSALS, CheckpointError
from lares_kernels.common import settings_files

_PREFIX, _SUFFIX = ".", ".part"  # of a file that is being written
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.part")  # as _new_file_beside names them
_LONGEST_NAME = 255  # bytes, of the file systems that people have
_LINKS_OF_THE_SYSTEM = ("dev", "proc")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; put it in ``path``'s place when the block succeeds.

    If the block raises (a full disk, an interrupt), the temporary file is removed and whatever was
    at ``path`` stays as it was. New files have the permissions that the umask leaves them, and one that
    is replaced keeps its own. A symbolic link stays one: what it leads to is replaced. A device, a pipe
    or a socket is written into.
    """
    path = Path(path)
    if _is_written_into(path):
        with _copied_into(path) as temporary:
            yield temporary
        return
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary = _new_file_beside(path)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        mode = _mode_of(path, temporary)
        os.chmod(temporary, mode | stat.S_IRUSR | stat.S_IWUSR)  # nobody else may read it meanwhile
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, mode)  # safetensors puts a file of its own there, for its owner alone
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in REFUSALS and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)  # what its user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text whole, or leave the one that is there."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole, or leave the one that is there.

    Raises:
        CheckpointError: it could not be written.
    """
    try:
        write_text(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise not_written(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ``CheckpointError`` if it is missing or broken."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        return settings_files.read_json(path, dict, "a JSON object")
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def not_written(path: Path, error: Exception) -> CheckpointError:
    """Return the error that says that a file which is written whole could not be written."""
    return CheckpointError(
        f"{path} could not be written ({error}); what was there before is untouched"
    )


@contextlib.contextmanager
def named_in_utf8(path: Path) -> Iterator[Path]:
    """Give a name for a file or folder that is there, for libraries that take names in UTF-8 alone: its
    own, or within the block that of a link to it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / f"link{path.suffix}"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def require_writable(path: Path) -> None:
    """Raise ``OSError`` if it can be told beforehand that ``path`` cannot be written."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if not path.exists() or not _is_written_into(path):
        require_folder(path.resolve().parent)
    elif not os.access(path, os.W_OK):
        raise PermissionError(f"{path} may not be written to")


def require_folder(path: Path) -> None:
    """Raise ``OSError`` if it can be told beforehand that ``path`` cannot be a folder to write into."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f"{place} is not a folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} may not be written to")


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers of ours left in ``folder`` itself, where nobody may be writing.

    Args:
        folder: to clear.
        name: of the one file that nobody may be writing; None is any.
    """
    written = "*" if name is None else f"{glob.escape(name)}.*"
    for path in folder.glob(f"{_PREFIX}{written}{_SUFFIX}"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def _is_written_into(path: Path) -> bool:
    """Return whether ``path`` must not be replaced: it is no plain file, or one opened already."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder")
    # /dev/stdout leads to what the shell has opened, which may be a plain file.
    opened = path.is_symlink() and path.absolute().parts[1] in _LINKS_OF_THE_SYSTEM
    return opened or not stat.S_ISREG(mode)


def _mode_of(*paths: Path) -> int:
    """Return the permissions of the first of ``paths`` that is there."""
    there = next(path for path in paths if path.exists())
    return stat.S_IMODE(there.stat().st_mode)


@contextlib.contextmanager
def _copied_into(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "whole"
        temporary.touch()
        yield temporary
        if sys.stdout is not None:  # it may lead to the same place
            sys.stdout.flush()
        try:
            with open(temporary, "rb") as source, open(path, "ab") as target:
                shutil.copyfileobj(source, target)
        except OSError as error:
            error.filename = str(path)  # a system names none that takes no more
            raise


def _new_file_beside(path: Path) -> Path:
    """Make an empty file of a name of its own, which ``tempfile`` would hide from all but its owner."""
    while True:
        end = f".{secrets.token_hex(4)}{_SUFFIX}"
        room = _LONGEST_NAME - len(_PREFIX) - len(end)
        # Letters that do not fit as a whole are left away.
        begin = os.fsencode(path.name)[:room].decode(errors="ignore")
        temporary = path.with_name(f"{_PREFIX}{begin}{end}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return temporary
