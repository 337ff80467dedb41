"""Re-export the errors of ``spec/errors.py`` under their public path."""

from lares_kernels.spec.errors import BackendError, PlanFailure

__all__ = ["BackendError", "PlanFailure"]
