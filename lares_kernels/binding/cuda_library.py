"""Bind the compiled CUDA kernels (csrc/lares_cuda.h) through ctypes."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lares_kernels.binding.built import is_checkout, why_not_built
from lares_kernels.spec.errors import BackendError

# Names another library than the one that was installed: the tests' emulator, say.
ENVIRONMENT_VARIABLE = "LARES_CUDA_LIBRARY"
_INSTALLED = Path(__file__).parent.with_name("liblares_cuda.so")
ABI = 8
FIELDS = 8  # room for what is known of each row of a tile
# Of the tile plan (csrc/cuda/tile_plan.hpp).
BLOCK = 128  # sequences that are cut into tiles on their own
PROGRAM_SUMS, SEQUENCE_FIELDS = 3, 6

_Int, _Word, _Float, _Pointer = ctypes.c_int32, ctypes.c_uint32, ctypes.c_float, ctypes.c_void_p


class LaresCudaRate(ctypes.Structure):
    """Mirror ``LaresCudaRate`` of csrc/lares_cuda.h."""

    _fields_ = [("bits", _Word), ("planes", _Int), ("scale", _Float)]


_INTEGERS = [
    "abi",
    "device",
    "d_model",
    "n_heads",
    "head_tiles",
    "d_ff",
    "n_layers",
    "adapter",
    "activation",
    "pre_norm",
    "precision",
]
_BATCH = [
    "n_groups",
    "rollouts",
    "padded_length",
    "n_hidden_rows",
    "kept_rows",
    "longest",
    "max_steps",
    "steps_done",
    "state_mode",
]
_LAUNCH = [
    "unit_warps",
    "units",
    "blocks",
    "resident",
    "staged",
    "shared_bytes",
    "max_tiles",
    "programs",
    "program_blocks",
    "planned",
    "split_parts",
    "products_ahead",
    "transposed",
    "carveout",
]
_POINTERS = [
    "stream",
    "lengths",
    "order",
    "num_steps",
    "sequence_ids",
    "seed",
    "seed_given",
    "hidden",
    "state",
    "matrices",
    "vectors",
    "sequences",
    "sums",
    "tile_start",
    "tile_count",
    "rows",
    "trajectory",
    "last",
    "final_state",
    "kept",
    "g_trajectory",
    "g_state",
    "carry",
    "g_hidden",
    "g_first",
    "spill",
    "concat_spill",
    "scratch",
    "gradients",
    "g_matrices",
    "g_vectors",
]
_STEPS = ["first_step", "last_step", "scratch_bytes", "splits", "begins"]


class LaresCudaCall(ctypes.Structure):
    """Mirror ``LaresCudaCall`` of csrc/lares_cuda.h, field by field."""

    _fields_ = [
        *((name, _Int) for name in _INTEGERS),
        *((name, _Float) for name in ("eps", "state_scale", "score_scale")),
        ("residual", LaresCudaRate),
        ("attention", LaresCudaRate),
        *((name, _Int) for name in _BATCH),
        ("seed_low", _Word),
        ("seed_high", _Word),
        *((name, _Int) for name in _LAUNCH),
        *((name, _Pointer) for name in _POINTERS),
        *((name, _Int) for name in _STEPS),
        ("pack", _Pointer),
    ]


class _Card(ctypes.Structure):
    _fields_ = [(name, _Int) for name in ("multiprocessors", "shared_limit", "major", "minor")]


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
    for name in ("card", "pack", "unpack", "forward", "backward", "probe"):
        if not hasattr(library, f"lares_cuda_{name}"):
            return f"{path.name} is of another version: run `pip install -e .` again"
        getattr(library, f"lares_cuda_{name}").restype = ctypes.c_char_p
    library.lares_cuda_card.argtypes = [ctypes.c_int32, ctypes.POINTER(_Card)]
    for name in ("lares_cuda_forward", "lares_cuda_backward"):
        getattr(library, name).argtypes = [ctypes.POINTER(LaresCudaCall)]
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
    found = _Card()
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
