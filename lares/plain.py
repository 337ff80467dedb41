"""Numbers as callers give them: NumPy's and PyTorch's scalars are plain ones, and are kept as such."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection
from typing import Any

from lares.errors import ConfigError
from lares.names import shown

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[int]": "a list of whole numbers",
    "list[Any]": "a list",
    "dict[str, float]": "numbers by name",
}


def plain(value: Any) -> Any:
    """Return the Python number of a scalar of NumPy or PyTorch, and anything else as it is."""
    if type(value) is int:  # compilers ask no more of a symbol
        return value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return ``value`` as a plain whole number in ``least..most``.

    Raises:
        ConfigError: it is none; the message calls it ``name``.
    """
    found = plain(value)
    if (
        isinstance(found, bool)
        or not isinstance(found, int)
        or found < least
        or (most is not None and found > most)
    ):
        allowed = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise ConfigError(f"{name} is {shown(found)}; it must be a whole number {allowed}")
    return found


def positive(name: str, value: float) -> None:
    """Raise ``ConfigError`` unless ``value`` is finite and above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value!r}; it must be a positive number")


def not_negative(name: str, value: float) -> None:
    """Raise ``ConfigError`` unless ``value`` is finite and not below zero."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} is {value!r}; it must be zero or more")


def one_of(name: str, value: object, choices: Collection[str]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of ``choices``; the message calls it ``name``."""
    if value not in choices:
        raise ConfigError(f"{name} is {shown(value)}; it must be one of {', '.join(choices)}")


def settle_options(options: Any, section: str = "") -> None:
    """Make the fields of a dataclass of options plain values of the types that they are declared with.

    Args:
        options: dataclass, also a frozen one.
        section: that messages put before an option's name.

    Raises:
        ConfigError: a value is of another type; the message gives name and value.
    """
    for field in dataclasses.fields(options):
        name = f"{section}.{field.name}" if section else field.name
        kind = str(field.type)
        value = plain(getattr(options, field.name))
        if not (value is None and kind.endswith(" | None")):
            value = _of_kind(name, value, kind.removesuffix(" | None"))
        object.__setattr__(options, field.name, value)


def _of_kind(name: str, value: Any, kind: str) -> Any:
    if kind == "list[int]" and isinstance(value, (list, tuple)):
        return [_of_kind(name, plain(element), "int") for element in value]
    if kind == "str" and isinstance(value, os.PathLike):
        value = os.fspath(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "int": number and isinstance(value, int),
        "float": number and _is_double(value),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
        "list[int]": False,
        "list[Any]": isinstance(value, list),
        "dict[str, float]": isinstance(value, dict),
    }
    if not fits[kind]:
        raise ConfigError(f"{name} is {shown(value)}; it must be {_KINDS[kind]}")
    return value


def _is_double(value: float) -> bool:
    try:
        float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return True
