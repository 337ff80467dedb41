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
    keep_shapes()
    look_for_no_overflow()
    draw_at_once()


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


def keep_shapes() -> None:
    """Spare a third: for every result the interpreter made its type and the shape's numbers anew.

    What a type and a tensor of it hold but for the numbers is made once and shared. Two tensors that
    share a shape need no broadcasting.
    """
    from triton.language import block_type, core, dtype, tensor
    from triton.language.semantic import TritonSemantic

    by_shape: dict[tuple[Any, ...], dict[str, Any]] = {}
    make_type, make_tensor = block_type.__init__, tensor.__init__
    broadcast = TritonSemantic.broadcast_impl_value
    scalar = tensor(None, core.int32)
    if set(vars(scalar)) != {"handle", "shape", "numel", "type", "dtype"}:
        return  # another version, which takes its time

    def make_type_once(self: Any, element: Any, shape: Any) -> None:
        sizes = tuple(getattr(size, "value", size) for size in shape)
        key = (element.name, sizes)
        if type(element) is not dtype:  # a pointer, whose name leaves out some of what it is
            make_type(self, element, shape)
        elif key in by_shape:
            vars(self).update(by_shape[key])
        else:
            make_type(self, element, shape)
            by_shape[key] = dict(vars(self))

    def make_tensor_once(self: Any, handle: Any, kind: Any) -> None:
        kept = vars(kind).get("of_a_tensor")
        if kept is None:
            make_tensor(self, handle, kind)
            kept = {name: vars(self)[name] for name in ("shape", "numel", "dtype")}
            vars(kind)["of_a_tensor"] = kept
            if kind.is_block() and (
                of_shape := by_shape.get((kind.scalar.name, tuple(kind.shape)))
            ):
                of_shape["of_a_tensor"] = kept
        else:
            vars(self).update(kept, handle=handle, type=kind)

    def broadcast_where_shapes_differ(self: Any, left: Any, right: Any) -> Any:
        shapes = [vars(each.type).get("shape") for each in (left, right)]
        if shapes[0] is shapes[1] and shapes[0] is not None:
            return left, right
        return broadcast(self, left, right)

    block_type.__init__ = make_type_once
    tensor.__init__ = make_tensor_once
    TritonSemantic.broadcast_impl_value = broadcast_where_shapes_differ


def look_for_no_overflow() -> None:
    """Spare a sixth: sums of whole numbers were made twice, and without ``debug`` nobody compared."""
    from triton.language.semantic import TritonSemantic

    look = getattr(TritonSemantic, "binary_op_sanitize_overflow_impl", None)
    if look is None:
        return

    def look_where_it_is_said(self: Any, *given: Any) -> None:
        if getattr(self.builder.options, "debug", True):
            look(self, *given)

    TritonSemantic.binary_op_sanitize_overflow_impl = look_where_it_is_said


def draw_at_once() -> None:
    """Spare half: a draw is 120 operations of the interpreter.

    tests/kernels/triton/interpreted/test_device_functions.py holds the draws of Triton's own function,
    as kernels compiled for a card take them, to the law.
    """
    import triton.language as tl

    tl.philox = philox_at_once


def philox_at_once(seed: Any, c0: Any, c1: Any, c2: Any, c3: Any) -> tuple[Any, ...]:
    """Return what ``triton.language.random.philox`` does of int32 counters, of tensors and numbers."""
    import torch
    from triton.language import block_type, tensor, uint32
    from triton.runtime.interpreter import TensorHandle

    from lares_kernels.spec.philox import philox4x32

    def numbers(given: Any) -> torch.Tensor:
        if isinstance(given, tensor):
            return torch.from_numpy(given.handle.data.astype("int64"))
        return torch.tensor([getattr(given, "value", given)])

    words = philox4x32(*(numbers(given) & 0xFFFFFFFF for given in (c0, c1, c2, c3)), numbers(seed))
    of_blocks = any(
        isinstance(given, tensor) and given.type.is_block() for given in (c0, c1, c2, c3)
    )
    kind = block_type(uint32, [*words[0].shape]) if of_blocks else uint32
    return tuple(
        tensor(TensorHandle(word.numpy().astype("uint32"), uint32), kind) for word in words
    )
