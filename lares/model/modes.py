"""Evaluation mode for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class _Before:
    """Modes of a model's parts before the first who evaluates it came, and how many do."""

    modes: dict[nn.Module, bool]
    users: int = 0


_LOCK = threading.Lock()
_before: WeakKeyDictionary[nn.Module, _Before] = WeakKeyDictionary()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode; then put each of its parts back into the mode that it was in.

    Threads may do so at once: the last one puts back, so that none switches dropout on for another.
    """
    with _LOCK:
        before = _before.get(model)
        if before is None:
            before = _before[model] = _Before({part: part.training for part in model.modules()})
            model.eval()
        before.users += 1
    try:
        yield
    finally:
        with _LOCK:
            before.users -= 1
            if before.users == 0:
                del _before[model]
                for part, mode in before.modes.items():
                    part.training = mode
