"""The file of cases that csrc/tests/harness.cpp describes, line by line."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {torch.float32: "float32", torch.float64: "float64", torch.int64: "int64"}
_DTYPES = {name: dtype for dtype, name in _TYPES.items()}


@dataclass(frozen=True)
class Entry:
    """A line of words, and the numbers after it."""

    words: tuple[str, ...]
    numbers: Tensor | None = None


def case(name: str, *functions: str) -> Entry:
    return Entry(("case", name, *functions))


def call(struct: ctypes.Structure) -> Entry:
    """The C struct; addresses, and what the harness sets itself, are zero."""
    for name, kind in struct._fields_:  # type: ignore[misc]
        if kind is ctypes.c_void_p or issubclass(kind, ctypes.Array) or name == "threads":
            setattr(struct, name, kind())
    return _with_numbers("call", "-", 0, torch.frombuffer(bytearray(struct), dtype=torch.int64))


def given(name: str, word: int, tensor: Tensor) -> Entry:
    """Whole numbers, or those that float32 holds."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return _with_numbers("input", name, word, tensor)


def room(name: str, word: int, count: int) -> Entry:
    return Entry(("room", name, str(word), "float32", str(count)))


def result(name: str, word: int, tensor: Tensor, single: float, half: float) -> Entry:
    """What is wanted, and the norms of the errors that are allowed."""
    return _with_numbers("result", name, word, tensor, f"{single:.3g}", f"{half:.3g}")


def _with_numbers(kind: str, name: str, word: int, tensor: Tensor, *more: str) -> Entry:
    tensor = tensor.detach().contiguous()
    shape = "x".join(map(str, tensor.shape)) or "-"
    return Entry((kind, name, str(word), _TYPES[tensor.dtype], shape, *more), tensor)


def word_of(struct: ctypes.Structure, name: str, index: int = 0) -> int:
    """Which word of 8 bytes a field (of several addresses, the one at ``index``) is."""
    offset: int = getattr(type(struct), name).offset
    return offset // 8 + index


def write(path: Path, entries: Iterable[Entry]) -> None:
    with path.open("wb") as file:
        for entry in entries:
            file.write((" ".join(entry.words) + "\n").encode())
            if entry.numbers is not None:
                file.write(entry.numbers.numpy().tobytes())


def read(path: Path) -> list[Entry]:
    found = []
    with path.open("rb") as file:
        while line := file.readline():
            words = tuple(line.decode().split())
            numbers = None
            if words[0] not in ("case", "room"):
                dtype = _DTYPES[words[3]]
                shape = [] if words[4] == "-" else [int(size) for size in words[4].split("x")]
                data = bytearray(file.read(torch.Size(shape).numel() * dtype.itemsize))
                numbers = torch.frombuffer(data, dtype=dtype).reshape(shape)
            found.append(Entry(words, numbers))
    return found
