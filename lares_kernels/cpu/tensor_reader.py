"""Check a call's tensors against a pattern and write their addresses into the call's struct.

The C library does it in a microsecond where torch publishes DLPack's exchange table (2.10 or later);
elsewhere Python does, tensor by tensor.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from lares_kernels.binding import cpu_library as lib
from lares_kernels.spec.choices import NumberType

_PLAIN = (Tensor, Parameter)  # a subclass may hold its numbers in its own way
_TYPES = {torch.float32: NumberType.FLOAT32, torch.int64: NumberType.INT64}
_MAX_DIMENSIONS = 4
ANY = -1  # a size that differs from call to call
_DLPACK = 1  # version of the exchange table


class ExpectedTensor(NamedTuple):
    """Describe an expected tensor, contiguous and on the CPU, and where its address is written.

    Attributes:
        word: index of the C struct's word for its address.
        dtype: float32 or int64.
        shape: of the tensor; a size may be ``ANY``.
        may_be_none: None is accepted too.
    """

    word: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    may_be_none: bool = False


# Takes a list and a C struct. Returns true if the list holds tensors that match the pattern; then the
# struct is filled in. The addresses stay valid as long as the caller keeps the tensors.
TensorReader = Callable[[list[object], lib.LaresCall], object]


def field_index(field: str, index: int = 0) -> int:
    """Return the 8-byte word of the C struct that holds ``field`` (or its element ``index``)."""
    offset: int = getattr(lib.LaresCall, field).offset
    return offset // 8 + index


def compile_pattern(struct: bytes, places: Sequence[ExpectedTensor]) -> TensorReader:
    """Return a check of tensors against ``places``; ``struct`` holds the C struct's other fields."""
    reader = _reader()
    if reader is None:
        return partial(_look_in_python, struct, places)
    pattern = _Pattern(
        ctypes.pointer(reader),
        ctypes.pointer(lib.LaresCall.from_buffer_copy(struct)),
        len(places),
        (_ExpectedTensor * len(places))(*map(_in_c, places)),
    )
    return partial(_look_in_c(), pattern)


def _look_in_python(
    struct: bytes, places: Sequence[ExpectedTensor], tensors: list[object], c: lib.LaresCall
) -> bool:
    if len(tensors) != len(places):
        return False
    words = (ctypes.c_uint64 * (ctypes.sizeof(c) // 8)).from_buffer(c)
    ctypes.memmove(words, struct, len(struct))
    for place, tensor in zip(places, tensors, strict=True):
        if tensor is None and place.may_be_none:
            continue
        address = _address(place, tensor)
        if not address:
            return False
        words[place.word] = address
    return True


def _address(place: ExpectedTensor, tensor: object) -> int:
    """Return the address of a tensor that matches ``place``, else 0."""
    if (
        isinstance(tensor, Tensor)
        and type(tensor) in _PLAIN
        and tensor.dtype is place.dtype
        and len(tensor.shape) == len(place.shape)
        and all(
            wanted in (size, ANY) for size, wanted in zip(tensor.shape, place.shape, strict=True)
        )
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
    ):
        return tensor.data_ptr()
    return 0


class _Reader(ctypes.Structure):
    """Mirror ``LaresReader`` of csrc/lares_kernels.h, field by field."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "size_of",
                "item_of",
                "type_of",
                "call",
                "release",
                "forget_error",
                "describe",
            )
        ),
        *((name, ctypes.py_object) for name in ("none", "is_false")),
        ("types", ctypes.py_object * len(_PLAIN)),
        ("is_negated", ctypes.py_object),
    ]


class _ExpectedTensor(ctypes.Structure):
    """Mirror ``LaresPlace`` of csrc/lares_kernels.h, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("word", "type", "may_be_none", "dimensions")),
        ("shape", ctypes.c_int64 * _MAX_DIMENSIONS),
        *((name, ctypes.c_void_p) for name in ("known", "known_at")),
    ]


class _Pattern(ctypes.Structure):
    """Mirror ``LaresPattern`` of csrc/lares_kernels.h, field by field."""

    _fields_ = [
        ("reader", ctypes.POINTER(_Reader)),
        ("call", ctypes.POINTER(lib.LaresCall)),
        ("n_places", ctypes.c_int64),
        ("places", ctypes.POINTER(_ExpectedTensor)),
    ]


class _ExchangeTable(ctypes.Structure):
    """Mirror DLPack's ``DLPackExchangeAPI``: functions that torch offers to other libraries."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "earlier_version",
                "allocate",
                "hand_over",
                "take_over",
                "describe",
                "stream",
            )
        ),
    ]


def _in_c(place: ExpectedTensor) -> _ExpectedTensor:
    shape = (*place.shape, *[1] * (_MAX_DIMENSIONS - len(place.shape)))
    return _ExpectedTensor(
        place.word, _TYPES[place.dtype], place.may_be_none, len(place.shape), shape
    )


@cache
def _look_in_c() -> Callable[[_Pattern, list[object], lib.LaresCall], int]:
    lib.loaded()
    # Unlike CDLL, it holds the interpreter's lock: no other thread touches the tensors meanwhile.
    function = ctypes.PyDLL(str(lib.LIBRARY)).lares_look
    function.argtypes = [
        ctypes.POINTER(_Pattern),
        ctypes.py_object,
        ctypes.POINTER(lib.LaresCall),
    ]
    function.restype = ctypes.c_int
    return function


@cache
def _reader() -> _Reader | None:
    """Return the functions with which the library reads tensors, or None where it cannot."""
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    # Without a lock of the interpreter's, a tensor might go while it is looked at.
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    if capsule is None or not has_lock or sys.implementation.name != "cpython":
        return None
    signature = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    pointer_of = signature(("PyCapsule_GetPointer", ctypes.pythonapi))
    table = _ExchangeTable.from_address(pointer_of(capsule, b"dlpack_exchange_api"))
    if table.major != _DLPACK or not table.describe:
        return None
    return _Reader(
        *map(
            _address_of_function,
            (
                "PyList_Size",
                "PyList_GetItem",
                "PyObject_Type",
                "PyObject_CallFunctionObjArgs",
                "Py_DecRef",
                "PyErr_Clear",
            ),
        ),
        table.describe,
        None,
        False,
        _PLAIN,
        Tensor.is_neg,
    )


def _address_of_function(name: str) -> int:
    """Return the address of a function of the interpreter's stable ABI."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
