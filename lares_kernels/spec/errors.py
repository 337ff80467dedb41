"""Define the exceptions that ``lares_kernels`` raises."""

from __future__ import annotations


class BackendError(RuntimeError):
    """Raise where a backend that was requested by name cannot serve the call; the message says
    why."""


class PlanFailure(BackendError):
    """Raise where no plan of a backend compiles and starts on a device; another may run the
    call."""
