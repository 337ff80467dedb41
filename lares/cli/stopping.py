"""Stop a command at once at Ctrl-C while it loads its libraries."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

STOPPED = 130  # how shells know a process that SIGINT ended
_LOADED = ("numpy", "torch")
_COMMANDS = "lares.cli."
_STDERR = 2


@contextlib.contextmanager
def stops_while_loading(speaks: bool) -> Iterator[None]:
    """Within the block SIGINT ends the process at once while a command, numpy or torch is imported.

    Compiled modules that import others drop what is raised then, classes that are being made turn it
    into a ``RuntimeError``, and a program with half a library goes on to errors that say nothing.
    Nothing is written before all of it is there. At any other time SIGINT raises
    ``KeyboardInterrupt``, as it does by itself.

    Args:
        speaks: whether this process says that it stops. Of several one does.
    """
    usual = signal.default_int_handler
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        commands = [name for name in sys.modules if name.startswith(_COMMANDS)]
        if not any(map(_is_loading, [*_LOADED, *commands])):
            usual(number, frame)
        if speaks:
            with contextlib.suppress(OSError):
                os.write(_STDERR, b"stopped\n")
        os._exit(STOPPED)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _is_loading(name: str) -> bool:
    """Return whether a library is being imported, as Python itself notes it."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
