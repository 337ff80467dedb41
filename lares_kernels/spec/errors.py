"""Exceptions raised by ``lares_kernels``."""

from __future__ import annotations


class BackendError(RuntimeError):
    """A backend that was asked for by name cannot serve the call; the message says why."""


class PlanFailure(BackendError):
    """No plan of a backend could be compiled and started on a device; another one may run the call."""
