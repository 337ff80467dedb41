"""Bind the compiled CUDA kernels (csrc/lares_cuda.h) through ctypes."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lares_kernels.binding import structs
from lares_kernels.binding.built import is_checkout, why_not_built
from lares_kernels.binding.fields import has_sizes
from lares_kernels.spec.errors import BackendError

# Names another library than the one that was installed: the tests' emulator, say.
ENVIRONMENT_VARIABLE = "LARES_CUDA_LIBRARY"
_INSTALLED = Path(__file__).parent.with_name("liblares_cuda.so")
# As lares_cuda_sizes has them.
_STRUCTS = (
    *(structs.LaresCudaCall, structs.LaresCudaCard, structs.LaresCudaPack),
    *(structs.LaresCudaUnpack, structs.LaresCudaProbe),
)


class Card(NamedTuple):
    """Describe a card: multiprocessors, and bytes of shared memory available to a block."""

    multiprocessors: int
    shared_limit: int
    capability: tuple[int, int]


def library_path() -> Path:
    """Return the path of the library, whether or not it exists."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or _INSTALLED)


@cache
def load() -> ctypes.CDLL | str:
    """Load the library. Return it, or the reason why there is none."""
    path = library_path()
    if not path.is_file():
        why = why_not_built(path)
        if not is_checkout() and why is None:
            return (
                f"{path.name} is not in this wheel: it is in the lares-kernels wheel for Linux on "
                "x86-64, and the sdist builds it with nvcc where LARES_CUDA=1 asks for it"
            )
        return (
            f"{path.name} was not built{f' ({why})' if why else ''}: with nvcc (CUDA 12.4 or later) on "
            "the path or in CUDA_HOME run `LARES_CUDA=1 pip install -e .`"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path.name} does not load: {error}"
    functions = ("card", "pack", "unpack", "forward", "backward", "probe")
    if not (
        all(hasattr(library, f"lares_cuda_{name}") for name in (*functions, "sizes"))
        and has_sizes(library.lares_cuda_sizes, *_STRUCTS)
    ):
        return f"{path.name} is of another version: run `pip install -e .` again"
    for name in functions:
        getattr(library, f"lares_cuda_{name}").restype = ctypes.c_char_p
    library.lares_cuda_card.argtypes = [ctypes.c_int32, ctypes.POINTER(structs.LaresCudaCard)]
    for name in ("lares_cuda_forward", "lares_cuda_backward"):
        getattr(library, name).argtypes = [ctypes.POINTER(structs.LaresCudaCall)]
    for name in ("lares_cuda_device_type", "lares_cuda_architectures"):
        getattr(library, name).argtypes = []
        getattr(library, name).restype = ctypes.c_char_p
    return library


def loaded() -> ctypes.CDLL:
    """Return the loaded library. Raise :class:`BackendError` if there is none."""
    library = load()
    if isinstance(library, str):
        raise BackendError(f"the CUDA kernels cannot be used: {library}")
    return library


def device_type() -> str:
    """Return the library's device type: ``cuda``, or ``cpu`` for the tests' emulator."""
    name: bytes = loaded().lares_cuda_device_type()
    return name.decode()


def architectures() -> str:
    """Return the architectures that the library was built for, such as ``80 90a 100a``."""
    names: bytes = loaded().lares_cuda_architectures()
    return names.decode()


@cache
def card(device: int) -> Card:
    """Return the properties of card number ``device``.

    Raises:
        BackendError: there is no such card.
    """
    found = structs.LaresCudaCard()
    error = loaded().lares_cuda_card(device, ctypes.byref(found))
    if error is not None:
        raise BackendError(f"cuda:{device} cannot be used: {error.decode()}")
    return Card(found.multiprocessors, found.shared_limit, (found.major, found.minor))


def run(function: str, call: ctypes.Structure) -> None:
    """Launch ``lares_cuda_pack``, ``_unpack``, ``_forward``, ``_backward`` or ``_probe``.

    Raises:
        BackendError: the driver reports an error; the message quotes it.
    """
    error = getattr(loaded(), function)(ctypes.byref(call))
    if error is not None:
        raise BackendError(f"the CUDA kernels did not start: {error.decode()}")
