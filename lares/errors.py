"""Errors that a user can act on. The command line prints them as one line."""

from __future__ import annotations

import errno


class LaresError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        exit_status: that the command line ends with.
    """

    exit_status = 2


class ConfigError(LaresError, ValueError):
    """An option is unknown or out of range."""


class DataError(LaresError, ValueError):
    """A data file or a sequence is not as it must be; the message gives file and line."""


class NotAListError(DataError, TypeError):
    """A value is given where a list must be; for callers it is a ``TypeError``, too."""


class CheckpointError(LaresError, RuntimeError):
    """A checkpoint is missing, broken, does not fit, or could not be written."""


class NonFiniteError(CheckpointError):
    """Report a value in a checkpoint, or for one, that is NaN or infinite."""


class WeightsError(LaresError, ValueError):
    """A model's weights are no numbers: NaN or infinite."""


# What a system says that takes no more, and what to do about it.
_ROOM, _PLACE = "make room there", "give a place that may be written to"
REFUSALS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: _PLACE,
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.ENAMETOOLONG: _PLACE,
    errno.EIO: "the device is broken",
}


def refusal(error: OSError) -> CheckpointError:
    """Return the error that says what the system refused, such as room on a full disk."""
    where = "" if error.filename is None else f"{error.filename}: "
    remedy = f"; {REFUSALS[error.errno]}" if error.errno in REFUSALS else ""
    return CheckpointError(f"{where}{error.strerror or error}{remedy}")


class DownloadError(LaresError, RuntimeError):
    """A download failed, or what came is not what was asked for."""
