"""Locate the cache folder, whose contents can be made again at any time."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

# Nothing can be read or written below a device: what asks for a file there gets an OSError.
NOWHERE = Path(os.devnull) / "lares"


def cache_folder() -> Path:
    """Return ``$LARES_CACHE``, else ``~/.cache/lares``; it need not exist.

    Where there is no home folder, as for a user whom the system does not know, it is
    ``lares-UID`` in the folder for temporary files; ``NOWHERE`` where that cannot be had or is not the
    user's own, so that nothing is kept and nothing believed that others wrote.
    """
    asked = os.environ.get("LARES_CACHE")
    if asked:
        return Path(asked)
    try:
        return Path.home() / ".cache" / "lares"
    except RuntimeError:
        return _temporary()


def _temporary() -> Path:
    try:
        folder = Path(tempfile.gettempdir()) / f"lares-{os.getuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return NOWHERE
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not others_write
    return folder if own else NOWHERE
