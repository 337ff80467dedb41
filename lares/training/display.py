"""Show a run while it goes: a line as it starts and for an epoch, a bar where one can be drawn."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from lares.bars import tqdm


def tell(notes: Iterable[str]) -> None:
    """Print what must not go unsaid, wanted or not."""
    for note in notes:
        _show(note)


def _show(line: str) -> None:
    """Write a line to standard output, for who follows a file.

    A run goes on where nobody reads what it says: standard output is closed, or its reader (head) gone.
    """
    if sys.stdout is None:
        return
    try:
        tqdm.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # a program's own stream is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Display:
    """Shows a run on standard output, and a bar on standard error where that is a terminal, or in the
    notebook that it is run in.

    Args:
        wanted: else nothing is shown.
        max_epochs: of the run.
    """

    def __init__(self, wanted: bool, max_epochs: int) -> None:
        self._wanted, self._max_epochs = wanted, max_epochs
        self._estimated = False

    def say(self, line: str) -> None:
        """Show a line."""
        if self._wanted:
            _show(line)

    def bar(self, epoch: int, samples: int, done: int) -> tqdm[Any]:
        """Return the bar of an epoch, counted from 1, of ``samples``, of which ``done`` are taken."""
        return tqdm(
            total=samples,
            initial=done,
            desc=f"epoch {epoch}/{self._max_epochs}",
            unit=" samples",
            disable=not (self._wanted and shows_bars()),
            leave=False,
        )

    def epoch(
        self, epoch: int, loss: float | None, valid: Mapping[str, float], seconds: float, best: bool
    ) -> None:
        """Show the line of an epoch, and after the first how long all may take.

        Args:
            epoch: counted from 1; 0 is what the run starts from.
            loss: mean over its steps; None for epoch 0.
            valid: metrics, empty where none were taken.
            seconds: that it took, with validation.
            best: whether it is the best so far.
        """
        parts = [f"epoch {epoch:3d}", "(start)    " if loss is None else f"loss {loss:.4f}"]
        if valid:
            parts.append(
                f"valid Recall@10 {valid['recall@10']:.4f}  NDCG@10 {valid['ndcg@10']:.4f}"
            )
        self.say("  ".join(parts) + ("  *" if best else ""))
        left = self._max_epochs - epoch
        if epoch > 0 and left > 0 and not self._estimated:
            self._estimated = True
            self.say(
                f"{seconds:.3g} s an epoch: at most {_span(seconds * left)} for the {left} to come"
            )


def shows_bars() -> bool:
    """Return whether a bar can be drawn over: into a file it is thousands of lines."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and "IPKernelApp" in shell.config:  # as tqdm knows notebooks
        return True
    return sys.stderr is not None and sys.stderr.isatty()


def _span(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    try:
        return str(datetime.timedelta(seconds=round(seconds)))
    except OverflowError:
        return f"{seconds:.3g} s"
