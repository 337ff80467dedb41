"""Set how the threads of a command wait for work."""

from __future__ import annotations

import os
import sys

# Looks before a thread sleeps, a few tens of microseconds: it is awake while one loop follows another.
LOOKS = "3000"
_ASKED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_briefly() -> None:
    """Have OpenMP's threads sleep soon, unless the environment says how they are to wait.

    Does nothing once torch is imported, which has read it. They spin for milliseconds else, and on a
    machine with other work take themselves the processor that the next loop needs
    (docs/notes/2026-11-30-cpu-kernel.md, "Two threads").
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _ASKED):
        os.environ["GOMP_SPINCOUNT"] = LOOKS
