"""Mark functions that torch.compile runs at compile time and whose result it embeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_F = TypeVar("_F", bound=Callable[..., object])


def constant_result(function: _F) -> _F:
    """Mark ``function`` as ``torch.compiler.assume_constant_result`` does, without its cost.

    Torch's own decorator imports the compiler to set this attribute, which takes longer than all of
    torch; every version since 2.0 checks for the attribute.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
