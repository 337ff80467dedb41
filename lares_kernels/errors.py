"""Public path of what calls raise, which ``spec/errors.py`` has."""

from lares_kernels.spec.errors import BackendError, PlanFailure

__all__ = ["BackendError", "PlanFailure"]
