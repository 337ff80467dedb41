"""Tests of device code on the CPU, collected only where Triton's interpreter is on.

``tests/kernels/test_triton.py`` runs them in a process of their own: Triton decides when it is first
imported whether it interprets.
"""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import Any

INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETS else ["test_*.py"]


def patch_each_module_once() -> None:
    """Spare the interpreter a quarter of its time.

    It puts its own functions in the place of ``triton.language``'s whenever a device function is
    called, by looking through all names of the module, also where the kernel around it had them put
    there. Here a module that has them is left as it is.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patch = getattr(interpreter, "_patch_lang", None)
    nothing = getattr(interpreter, "_LangPatchScope", None)
    if patch is None or nothing is None:
        return  # another version, which takes its time

    @cache
    def languages(function: Any) -> list[ModuleType]:
        return [each for each in function.__globals__.values() if each is tl or each is tl.core]

    def patch_once(function: Any) -> Any:
        if any(tl.core.is_builtin(language.load) for language in languages(function)):
            return patch(function)
        return nothing()

    interpreter._patch_lang = patch_once


if INTERPRETS:
    patch_each_module_once()
