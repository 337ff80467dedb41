"""Options as callers give them: checked by what their dataclass declares, and kept as plain values.

NumPy's and PyTorch's scalars are numbers, too.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lares.errors import ConfigError
from lares.names import nearest, shown

Check = Callable[[str, Any], object]  # of the value of a name; raises ConfigError
KINDS: dict[Any, str] = {  # in words
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[int]: "a list of whole numbers, such as [1,2]",
    list[str]: "a list of words, such as [popularity,sasrec]",
    list[Any]: "a list",
    dict[str, float]: "numbers by name",
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
    number = plain(value)
    if (
        isinstance(number, bool)
        or not isinstance(number, int)
        or number < least
        or (most is not None and number > most)
    ):
        allowed = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise ConfigError(f"{name} is {shown(number)}; it must be a whole number {allowed}")
    return number


def whole_in(least: int, most: int | None = None) -> Check:
    """Return the check that a value is a whole number in ``least..most``."""
    return lambda name, value: whole(name, value, least, most)


def positive(name: str, value: float) -> None:
    """Raise ``ConfigError`` unless ``value`` is finite and above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value!r}; it must be a positive number")


def not_negative(name: str, value: float) -> None:
    """Raise ``ConfigError`` unless ``value`` is finite and not below zero."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} is {value!r}; it must be zero or more")


def rate_below(most: float) -> Check:
    """Return the check that a value lies in ``0..most``, ``most`` left out."""

    def check(name: str, value: float) -> None:
        if not 0 <= value < most:
            raise ConfigError(f"{name} is {value!r}; it must lie in 0..{most:g}, {most:g} left out")

    return check


def one_of(name: str, value: object, choices: Collection[str]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of ``choices``; the message calls it ``name``."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} is {shown(value)}; it must be one of {', '.join(choices)}")


def check_known(given: Iterable[object], known: Collection[str], what: str) -> None:
    """Raise ``ConfigError`` for a name that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}; {nearest(str(name), known)}")


def option(default: Any, check: Check) -> Any:
    """Return a field of a dataclass of options, with a check of its value."""
    return dataclasses.field(default=default, metadata={"check": check})


def settle_options(options: Any, prefix: str = "") -> None:
    """Make the fields of a dataclass of options plain values such as it declares.

    Those are of the declared type, where that is a ``Literal`` one of its choices, and pass the check
    that :func:`option` gives the field, all in a list do. Null, where it is allowed, is as it is.

    Args:
        options: dataclass, also a frozen one.
        prefix: that messages put before an option's name.

    Raises:
        ConfigError: a value is another; the message gives name and value.
    """
    hints = get_type_hints(type(options))
    for field in dataclasses.fields(options):
        name = prefix + field.name
        kind, may_be_none = without_none(hints[field.name])
        value = plain(getattr(options, field.name))
        if not (value is None and may_be_none):
            value = _of_kind(name, value, kind)
            if "check" in field.metadata:
                for each in value if isinstance(value, list) else [value]:
                    field.metadata["check"](name, each)
        object.__setattr__(options, field.name, value)


def without_none(kind: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None is one of its values."""
    others = [each for each in get_args(kind) if each is not type(None)]
    return (others[0], True) if type(None) in get_args(kind) else (kind, False)


def _of_kind(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        one_of(name, value, get_args(kind))
        return value
    if kind == list[int] and isinstance(value, (list, tuple)):
        return [_of_kind(name, plain(element), int) for element in value]
    if kind == list[str] and isinstance(value, tuple):
        return list(value)
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        int: number and isinstance(value, int),
        float: number and _is_double(value),
        list[int]: False,
    }
    if not fits.get(kind, isinstance(value, get_origin(kind) or kind)):
        raise ConfigError(f"{name} is {shown(value)}; it must be {KINDS[kind]}")
    return value


def _is_double(value: float) -> bool:
    try:
        float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return True
