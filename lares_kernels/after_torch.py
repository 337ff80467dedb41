"""Run a function as soon as torch is imported, without importing it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_torch(then: Callable[[], None]) -> None:
    """Call ``then`` now if torch is imported, else at the end of its import.

    If a module of this package, itself half imported, imports torch, ``then`` is not called: an
    import of that module by its own name needs nothing more.
    """
    if "torch" in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _TorchFinder(then))


class _TorchFinder(MetaPathFinder):
    """Find torch as the other finders do, and run ``then`` after its import."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._looking: set[int] = set()  # threads

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        thread = threading.get_ident()
        # A finder that asks all others, as this one does, may come back here.
        if name != "torch" or thread in self._looking:
            return None
        self._looking.add(thread)
        try:
            spec = self._spec_of_others(name, path, target)
        finally:
            self._looking.discard(thread)
        loader = None if spec is None else spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return spec

        def execute_and_then(module: ModuleType) -> None:
            execute(module)
            # The loader may be one for many modules, and looked up more than once.
            if module.__name__ == name and self in sys.meta_path:
                sys.meta_path.remove(self)
                if not _half_imported():
                    self._then()

        # Looking torch up without importing it comes here, too: nothing else may change by that.
        loader.exec_module = execute_and_then  # type: ignore[union-attr, method-assign]
        return spec

    def _spec_of_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        """Return what import would find without this finder."""
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None
            if finder is not self and find is not None:
                spec = find(name, path, target)
            if spec is not None:
                return spec
        return None


def _half_imported() -> bool:
    """Return True if a module of this package is being imported."""
    inside = f"{__package__}."
    return any(
        name.startswith(inside) and getattr(module.__spec__, "_initializing", False)
        for name, module in list(sys.modules.items())
    )
