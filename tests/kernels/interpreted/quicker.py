"""Spares Triton's interpreter time; what it computes stays the same."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any


def spare_time() -> None:
    """Change the interpreter of this process where its version is known."""
    patch_each_module_once()
    reduce_by_xor_at_once()
    keep_types_of_arrays()


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


def reduce_by_xor_at_once() -> None:
    """Spare a sort nearly all of its time: it is made of such sums, which went number by number."""
    import numpy as np
    from triton.language import standard
    from triton.runtime import interpreter

    reduction = getattr(interpreter, "ReduceOps", None)
    combine = getattr(standard, "_xor_combine", None)
    if combine is None or not {"apply_impl", "to_tensor"} <= set(dir(reduction)):
        return
    apply = reduction.apply_impl

    def apply_at_once(self: Any, given: tuple[Any, ...]) -> Any:
        if self.combine_fn is not combine or self.axis is None:
            return apply(self, given)
        (numbers,) = given
        found = np.bitwise_xor.reduce(numbers.handle.data, axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(found, numbers.dtype)

    reduction.apply_impl = apply_at_once


def keep_types_of_arrays() -> None:
    """Spare a twentieth: for every array the interpreter makes a table of all types anew."""
    from triton.language import block_type, pointer_type
    from triton.runtime import interpreter

    look_up = getattr(interpreter, "_get_np_dtype", None)
    if look_up is None:
        return
    kept: dict[str, Any] = {}

    def keep(of: Any) -> Any:
        number = of.element_ty if isinstance(of, block_type) else of
        if isinstance(number, pointer_type):
            return look_up(of)
        if number.name not in kept:
            kept[number.name] = look_up(of)
        return kept[number.name]

    interpreter._get_np_dtype = keep
