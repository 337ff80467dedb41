"""Bind the compiled CPU kernels (csrc/lares_kernels.h) through ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lares_kernels.binding.built import FOLDER, is_checkout, why_not_built
from lares_kernels.binding.fields import has_sizes
from lares_kernels.binding.structs import LARES_ABI
from lares_kernels.binding.structs import LaresCall as LaresCall
from lares_kernels.binding.structs import LaresCatalogue as LaresCatalogue
from lares_kernels.common.verdicts import digest_of
from lares_kernels.spec.choices import Code, Function, Precision, StateMode
from lares_kernels.spec.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor

LIBRARY = FOLDER / "liblares_cpu.so"
# Names the instruction set to use instead of the best one; read when the library is loaded.
ISA_VARIABLE = "LARES_CPU_ISA"
ABI = LARES_ABI

_SERVED = (Precision.FP32, Precision.BF16)  # of the products
PRECISIONS = tuple(precision.text for precision in _SERVED)

# All that is called below: a library of another version may lack some.
_FUNCTIONS_OF_LIBRARY = (
    *("lares_refine_forward", "lares_refine_backward"),
    *(f"lares_catalogue_{name}" for name in ("log_probability", "gradients", "top_k", "ranks")),
    *(
        "lares_look",
        "lares_evaluate",
        "lares_isas",
        "lares_use_isa",
        "lares_asked_isa",
        "lares_sizes",
        "lares_measure_peak",
    ),
)


@cache
def load() -> ctypes.CDLL | str:
    """Return the library, or why there is none.

    Raises:
        BackendError: ``LARES_CPU_ISA`` names an instruction set that is not available.
    """
    library = _load()
    asked = os.environ.get(ISA_VARIABLE, "")
    if asked and isinstance(library, str):
        raise BackendError(
            f"{ISA_VARIABLE} asks for instruction set {asked!r}, but there is no CPU kernel: {library}"
        )
    if asked and not isinstance(library, str):
        _choose(library, asked, ISA_VARIABLE)
    return library


def _load() -> ctypes.CDLL | str:
    again = "run `pip install -e .`" if is_checkout() else "install lares-kernels"
    if not LIBRARY.is_file():
        why = why_not_built(LIBRARY)
        if not is_checkout() and why is None:
            return (
                "it is not in this wheel, which is for any platform: install the lares-kernels wheel "
                "of this platform, or the sdist where there is a C++ compiler (g++ or clang++)"
            )
        return (
            f"it was not built{f' ({why})' if why else ''}: install a C++ compiler (g++ or clang++) "
            f"and {again} again"
        )
    return open_library(LIBRARY, f"{LIBRARY.name} is of another version: {again} again")


def open_library(path: Path, another: str) -> ctypes.CDLL | str:
    """Return the library at ``path``, or why it cannot be used: ``another`` where its interface is not
    ours."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path.name} does not load: {error}"
    if not all(hasattr(library, name) for name in _FUNCTIONS_OF_LIBRARY):
        return another
    for name in ("lares_refine_forward", "lares_refine_backward"):
        function = getattr(library, name)
        function.argtypes = [ctypes.POINTER(LaresCall)]
        function.restype = ctypes.c_int
    for name in ("log_probability", "gradients", "top_k", "ranks"):
        function = getattr(library, f"lares_catalogue_{name}")
        function.argtypes = [ctypes.POINTER(LaresCatalogue)]
        function.restype = ctypes.c_int
    library.lares_evaluate.argtypes = [ctypes.c_int, ctypes.c_int64, *[ctypes.c_void_p] * 2]
    library.lares_isas.argtypes = [ctypes.c_int]
    library.lares_isas.restype = ctypes.c_char_p
    library.lares_use_isa.argtypes = [ctypes.c_char_p]
    library.lares_asked_isa.argtypes = [ctypes.c_int]
    library.lares_asked_isa.restype = ctypes.c_char_p
    library.lares_measure_peak.argtypes = [ctypes.c_int]
    library.lares_measure_peak.restype = ctypes.c_double
    return library if _takes_these_structs(library) else another


def _takes_these_structs(library: ctypes.CDLL) -> bool:
    """Return True if the library's structs have our sizes, and the number ``ABI``.

    A library checks the structs' version first. The probe is a call whose only fault is one that is
    checked later: the number of rows does not match the sequences.
    """
    if not has_sizes(library.lares_sizes, LaresCall, LaresCatalogue):
        return False
    lengths, hidden = (ctypes.c_int64 * 1)(1), (ctypes.c_float * 16)()
    call = LaresCall(abi=ABI, d_model=8, n_heads=1, d_ff=8, n_layers=1, eps=1e-12)
    call.n_sequences, call.rollouts, call.n_rows, call.max_steps = 1, 1, 2, 1
    call.state_mode, call.threads = StateMode.ZERO, 1
    call.hidden, call.lengths = ctypes.addressof(hidden), ctypes.addressof(lengths)
    return bool(library.lares_refine_forward(call) == Code.BAD_LENGTH)


def loaded() -> ctypes.CDLL:
    """Return the loaded library. Raise :class:`BackendError` if there is none."""
    library = load()
    if isinstance(library, str):
        raise BackendError(f"the CPU kernel cannot be used: {library}")
    return library


FUNCTIONS = Function.texts()


def evaluate(function: str, x: Tensor) -> Tensor:
    """Return one of ``FUNCTIONS`` of float32 ``x`` as the kernel computes it, for tests."""
    x = x.contiguous()
    y = x.new_empty(x.shape)
    loaded().lares_evaluate(Function.of(function), x.numel(), x.data_ptr(), y.data_ptr())
    return y


def cpu_peak(precision: str = "fp32") -> float | None:
    """Measure the peak rate of one core's multiply-adds, in 1e9 floating-point operations a second.

    It is the peak of the instructions that the kernel multiplies with in that ``precision``
    (:func:`instruction_sets`). None for a ``precision`` that it does not serve, or without a kernel.
    """
    if precision not in PRECISIONS or isinstance(load(), str):
        return None
    return float(loaded().lares_measure_peak(Precision.of(precision)))


# The set asked for each precision, as far as use_instruction_set has asked; read in every call.
_asked: tuple[bytes, ...] = (b"",) * len(PRECISIONS)


def asked_sets() -> tuple[bytes, ...]:
    """Return what tells apart the instruction sets that blocks of :func:`use_instruction_set` chose."""
    return _asked


def _asked_of(library: ctypes.CDLL) -> tuple[bytes, ...]:
    return tuple(library.lares_asked_isa(precision) or b"" for precision in _SERVED)


def _choose(library: ctypes.CDLL, name: str, asked_by: str) -> None:
    names: bytes = library.lares_isas(Precision.BF16)
    found = names.decode().split()
    # The library takes no name for whatever is best, and none for more than a C string holds.
    if name not in found or library.lares_use_isa(name.encode()) != 0:
        raise BackendError(
            f"{asked_by} asks for instruction set {name!r}, which is not available here; "
            f"available are {', '.join(found)}"
        )


@contextlib.contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Run every call of this process inside the block with instruction set ``name``.

    A set whose name ends in ``_bf16`` is for calls in that precision; others run as before. Blocks may
    be nested: each restores the set that was in use when it began.

    Raises:
        BackendError: the library has no such set, or this processor does not.
    """
    global _asked
    library = loaded()
    before = _asked_of(library)
    _choose(library, name, "use_instruction_set")
    _asked = _asked_of(library)
    try:
        yield
    finally:
        library.lares_use_isa(b"")
        for asked in before:  # a float32 set first, as it is for every precision
            if asked:
                library.lares_use_isa(asked)
        _asked = _asked_of(library)


def instruction_sets(precision: str = "fp32") -> list[str]:
    """Return the instruction sets that serve a precision on this processor, best first.

    The first is used unless another was requested (:func:`instruction_set_in_use`). For ``bf16`` it is
    a set that multiplies bfloat16 (its name ends in ``_bf16``) only where that is faster than float32;
    there are processors where it takes twice as long.
    """
    names: bytes = loaded().lares_isas(Precision.of(precision))
    return names.decode().split()


def build(precision: str) -> str:
    """Identify the code of calls in this precision: the library's digest and instruction set."""
    return f"{digest_of(LIBRARY)} {instruction_set_in_use(precision)}"


def instruction_set_in_use(precision: str = "fp32") -> str:
    """Return the name of the instruction set that calls in a precision run with now."""
    library = loaded()
    for one in range(Precision.of(precision), -1, -1):
        asked: bytes = library.lares_asked_isa(one)
        if asked:
            return asked.decode()
    return instruction_sets(precision)[0]
