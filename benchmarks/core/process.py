"""Programs in processes of their own, which see this checkout's modules, for a limited time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.core.settings import ROOT


class Ended(NamedTuple):
    """What a process printed, errors among it, its exit status, and the seconds that it took."""

    text: str
    status: int
    seconds: float

    @property
    def wrong(self) -> str | None:
        """Why it failed: the last line, which of a traceback names the error; None where it did not."""
        lines = [f"status {self.status}, and no word", *self.text.splitlines()]
        return lines[-1] if self.status else None

    def told(self, what: str, file: Path, say: Callable[[str], None]) -> list[str]:
        """Add it to a file, say how it ended, and return why ``what`` failed, a line where it did."""
        with file.open("a", encoding="utf-8") as log:
            log.write(f"== {what} ({self.seconds:.0f} s): {self.wrong or 'ok'}\n{self.text}\n")
        say(f"{what} ({self.seconds:.0f} s): {self.wrong or 'ok'}")
        return [f"{what}: {self.wrong}"] if self.wrong else []


def run_here(
    command: Sequence[str | Path], seconds: float, folder: Path = ROOT, **added: str
) -> Ended:
    """Run a command and all that it starts for at most so many seconds, whatever becomes of it.

    Args:
        command: its output and errors are kept together, as they come.
        seconds: after which it is killed; what it printed until then is kept, and that it was stopped.
        folder: that it runs in.
        added: to its environment.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment_here() | added,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # which is killed as a whole
    )
    stopped = ""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        stopped = f"\nstopped after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if stopped:
        output, _ = process.communicate()
    text = output.decode(errors="replace").rstrip() + stopped
    return Ended(text, process.returncode, time.monotonic() - began)


def printed_by(
    command: Sequence[str],
    seconds: float | None = None,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a program prints, errors aside; its environment is this checkout's unless one is given.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than so many seconds.
    """
    return subprocess.run(
        command,
        cwd=folder,
        env=environment or environment_here(),
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=seconds,
    ).stdout


def environment_here() -> dict[str, str]:
    """This process's environment, with its modules first this checkout's."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
