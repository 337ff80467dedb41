"""Doing something as soon as torch is there, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def after_torch(then: Callable[[], None]) -> None:
    """Call ``then`` now if torch is imported, else at the end of its import.

    Where it is a module of this package that imports torch, being half imported itself, ``then`` is not
    called: who asked for that module by its own name has what it needs.
    """
    if "torch" in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _TorchFinder(then))


class _TorchFinder(MetaPathFinder):
    """Finds torch as Python does by itself, and adds ``then`` to what importing it does."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_then(module: ModuleType) -> None:
            execute(module)
            sys.meta_path.remove(self)
            if not _half_imported():
                self._then()

        # Looking torch up without importing it comes here, too: nothing else may change by that.
        spec.loader.exec_module = execute_and_then  # type: ignore[method-assign]
        return spec


def _half_imported() -> bool:
    """Return whether a module of this package is being imported."""
    inside = f"{__package__}."
    return any(
        name.startswith(inside) and getattr(module.__spec__, "_initializing", False)
        for name, module in list(sys.modules.items())
    )
