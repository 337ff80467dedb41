"""Safetensors files of ours, whole or not there, with a checksum.

The checksum, of names, types, shapes, bytes and metadata, is among the metadata. Files without one are
older, or others'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lares.errors import CheckpointError, NonFiniteError
from lares.files import atomic_write, named_in_utf8, not_written
from lares.finite import first_non_finite

# Two keys, so that damage to the name of one does not make the file look like one without.
_CHECKSUM, _CHECKED = "lares_checksum", "lares_checked_by"


def refuse_non_finite(tensors: Mapping[str, Tensor], consequence: str) -> None:
    """Raise ``NonFiniteError`` with ``consequence`` if a tensor holds a NaN or an infinity."""
    broken = first_non_finite(tensors)
    if broken is not None:
        raise NonFiniteError(f"{broken}; {consequence}")


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the XXH3 of tensors, contiguous on the CPU, and metadata, in hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    others = sorted(item for item in metadata.items() if item[0] != _CHECKSUM)
    hasher.update(json.dumps(others).encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole, or leave the one that is there; equal content is equal bytes.

    Raises:
        CheckpointError: a tensor is not finite, or the disk took no more.
    """
    refuse_non_finite(tensors, f"{path} was not written")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {**metadata, _CHECKED: "xxh3_128"}
    described[_CHECKSUM] = _checksum(contiguous, described)
    try:
        with atomic_write(path) as temporary:
            save_file(contiguous, temporary, metadata=described)
            _order_metadata(temporary)
    except (OSError, SafetensorError) as error:
        raise not_written(path, error) from error


def _order_metadata(path: Path) -> None:
    """Sort the metadata in a safetensors file's header: the library has another order at every call."""
    with open(path, "rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(ordered) <= length  # both write JSON without blanks, and tensors stay in place
        file.seek(8)
        file.write(ordered.ljust(length))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or not a safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        with named_in_utf8(path) as name, safe_open(name, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated or corrupt ({error}); restore it from a copy or train again"
        ) from error
    checked = _CHECKED in metadata or _CHECKSUM in metadata
    if checked and metadata.get(_CHECKSUM) != _checksum(tensors, metadata):
        raise CheckpointError(
            f"{path} is corrupt: it does not have the checksum that it was written with; restore it "
            "from a copy or train again"
        )
    return tensors, metadata
