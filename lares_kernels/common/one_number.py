"""Check single whole and real numbers that callers pass, without torch."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any


def is_truth(value: object) -> bool:
    """Return True if ``value`` is a bool of Python, NumPy or PyTorch; a bool is not a number."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def whole_number(name: str, value: object) -> int:
    """Return ``value`` as an int. Raise ``TypeError`` unless it is a whole number."""
    if type(value) is int:
        return value
    if not is_truth(value):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise TypeError(f"{name} is {value!r}; it must be a whole number")


def real_number(name: str, value: Any) -> float:
    """Return ``value`` as a float. Raise ``TypeError`` unless it is one number."""
    if type(value) is float:
        return value
    if not is_truth(value) and (isinstance(value, Real) or getattr(value, "ndim", None) == 0):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise TypeError(f"{name} is {value!r}; it must be a number")
