"""Define the exceptions that ``lares_kernels`` raises."""

from __future__ import annotations


class BackendError(RuntimeError):
    """Report why a backend that was requested by name cannot serve the call."""


class PlanFailure(BackendError):
    """Report that no plan of a backend started on a device; another may run the call."""
