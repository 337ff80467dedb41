"""Stopping a run between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from lares.errors import LaresError

_STDERR = 2


class Interrupted(LaresError):
    """The run was asked to stop; its state is saved.

    Args:
        message: with the command that goes on.
        signal_number: that asked; a shell knows it by the exit status.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal_number = int(signal_number)
        self.exit_status = 128 + signal_number


class StopRequest:
    """Remember whether a signal asked to stop.

    Attributes:
        number: of the signal, 0 before one came.
    """

    def __init__(self) -> None:
        self.number = 0


@contextlib.contextmanager
def stop_request(says_so: bool = True) -> Iterator[StopRequest]:
    """Give a request that the first SIGINT or SIGTERM makes; the second does what it always does.

    Args:
        says_so: tell that the run stops after its step. Of several processes one does.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        request.number = number
        restore()
        if says_so:  # not by print, in whose middle the signal may have come
            with contextlib.suppress(
                OSError
            ):  # nobody reads it, or it is full: the run stops as well
                os.write(_STDERR, b"\nstopping after this step; again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield request
    finally:
        restore()
