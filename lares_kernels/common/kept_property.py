"""Provide ``kept_property``: ``functools.cached_property`` for programs that are compiled.

The one of Python up to 3.11 takes a lock, which torch.compile cannot trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

_T = TypeVar("_T")


class kept_property(Generic[_T]):  # noqa: N801  # a decorator, as property is
    """Compute a property once for each object, frozen or not."""

    def __init__(self, find: Callable[[Any], _T]) -> None:
        self.find = find
        self.__doc__ = find.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> kept_property[_T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: object | None, owner: type) -> kept_property[_T] | _T:
        if instance is None:
            return self
        value = self.find(instance)
        # Found before the descriptor from now on, since that has no __set__.
        object.__setattr__(instance, self.find.__name__, value)
        return value
