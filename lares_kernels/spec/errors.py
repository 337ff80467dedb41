"""Define the exceptions that ``lares_kernels`` raises."""

from __future__ import annotations


class BackendError(RuntimeError):
    """Report that a backend requested by name cannot serve the call; the message says
    why."""


class PlanFailure(BackendError):
    """Report that no plan of a backend compiled and started on a device; another may run the
    call."""
