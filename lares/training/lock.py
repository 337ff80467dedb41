"""One writer a run folder: a lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lares.errors import ConfigError

LOCK_FILE = ".lock"
# What file systems say that know no locks: a run there goes without.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def held(folder: Path, option: str = "--out") -> Iterator[None]:
    """Be the only one to write into ``folder``, which messages say that ``option`` names.

    The system lets go of the lock when the process ends, however it ends, so a file that is left
    locks nobody out.

    Raises:
        ConfigError: another process holds it, and the message says which; or the folder is read-only.
        FileNotFoundError: there is no folder.
    """
    path = folder / LOCK_FILE
    handle = _open_and_lock(path, option)
    try:
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # still locked: who waits for this file finds that it is gone
        os.close(handle)


def _open_and_lock(path: Path, option: str) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ConfigError(
                f"{path.parent} cannot be written to: {error.strerror or error}; "
                f"give another {option}"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 1000).decode(errors="replace") or "another process"
            os.close(handle)
            raise ConfigError(
                f"{path.parent} is in use: {holder} writes there; wait for it, stop it, or give "
                f"another {option}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            return handle
        # The holder before may have removed the file between our opening and locking it.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Return whether a process writes into ``folder``, as far as its file system knows locks.

    Nothing is written: the folder may be another's.
    """
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # there is no such file, or it is not ours to read
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
