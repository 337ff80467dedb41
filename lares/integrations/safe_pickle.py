"""Checkpoints of others, which are pickles, read without trust in what is in them."""

from __future__ import annotations

import io
import pickle
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lares.errors import CheckpointError
from lares.integrations.pickle_walk import walk_pickle

_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
# Pickles of a file without zip: magic number, protocol, sizes of types; what was saved; storages' keys.
_PICKLES = 5
_ZIP = b"PK\x03\x04"  # what begins so, torch.load takes for a zip file, and nothing else


class Inert:
    """Stands for an object of a class that is not loaded: keeps its state, runs nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.arguments = args

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def is_larger_than_stored(tensor: Tensor) -> bool:
    """Return whether a tensor repeats what it stores: a copy of it may take any amount of memory."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    tensor: Tensor = torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, {})
    if is_larger_than_stored(tensor):
        raise pickle.UnpicklingError("a tensor is larger than what is stored of it")
    return tensor


def _rebuild_parameter(data: object, *_: object) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError("a parameter is no tensor")
    return data


def _bytes_of(text: object = b"", codec: object = "") -> bytes:
    """Return the bytes that Python 2's forms of pickle hold as text."""
    if isinstance(text, str) and codec in ("latin1", "latin-1"):
        return text.encode("latin-1")
    if not isinstance(text, bytes):  # a number would be how much to allocate
        raise pickle.UnpicklingError("bytes are made of neither bytes nor latin1")
    return text


def _bytes_alone(*args: object) -> bytearray:
    return bytearray(_bytes_of(*args))


def _of_containers(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of plain containers alone: of a tensor each element would become an object."""

    def make(*args: object) -> Any:
        if not all(isinstance(arg, (list, tuple, dict, set, frozenset)) for arg in args):
            raise pickle.UnpicklingError(f"a {function.__name__} is not made of a container")
        return function(*args)

    return make


class _Ordered(dict[Any, Any]):
    """A dictionary whose attributes, such as ``_metadata`` of ``state_dict()``, are left out."""

    def __setstate__(self, state: object) -> None:
        """Leave what a pickle would set."""


_SAFE: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _of_containers(_Ordered),
    ("builtins", "set"): _of_containers(set),
    ("builtins", "frozenset"): _of_containers(frozenset),
    ("builtins", "complex"): complex,
    ("builtins", "bytearray"): _bytes_alone,
    ("builtins", "bytes"): _bytes_of,
    ("_codecs", "encode"): _bytes_of,
    ("torch", "Size"): _of_containers(torch.Size),
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _SafeUnpickler(pickle.Unpickler):
    """Loads tensors and plain containers; every other class becomes :class:`Inert`, never imported."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # as Python 2 called it
        return _SAFE.get((module, name), Inert)


def _stored(ids: Iterable[tuple[Any, ...]]) -> dict[str, int]:
    """Return the bytes of what persistent ids say is stored, by key."""
    stored: dict[str, int] = {}
    for _, kind, key, _, count, *_ in ids:
        if kind not in _BYTES or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError(f"it stores {count!r} of {kind!r}")
        # Text, as torch.save writes: of other keys, such as NaN, each is read as another storage.
        if type(key) is not str:
            raise pickle.UnpicklingError(f"{key!r} is no key of what is stored")
        stored[key] = max(stored.get(key, 0), _BYTES[kind] * count)
    return stored


def _safe_pickle() -> types.ModuleType:
    """A ``pickle_module`` for ``torch.load`` that can run no code of a file."""
    module = types.ModuleType("lares_safe_pickle")
    module.Unpickler = _SafeUnpickler  # type: ignore[attr-defined]
    module.load = lambda file, **_: _SafeUnpickler(file).load()  # type: ignore[attr-defined]
    module.loads = lambda data, **_: _SafeUnpickler(io.BytesIO(data)).load()  # type: ignore[attr-defined]
    return module


def load_pickle(path: Path) -> Any:
    """Return what ``torch.save`` wrote into a file: tensors and plain containers.

    Objects of other classes are :class:`Inert`; nothing in the file can run or change anything, no
    tensor takes more memory than the file is large, and nothing else more than some hundred times the
    pickle's size (:mod:`lares.integrations.pickle_walk`).

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        _check_sizes(path)
        return torch.load(
            path, map_location="cpu", pickle_module=_safe_pickle(), weights_only=False
        )
    except Exception as error:  # a broken pickle can fail in any way
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {' '.join(str(error).split())}"
        ) from error


def _place_of_directory(path: Path) -> int | None:
    """Return where a zip file's end says that its directory is; None if it does not end as expected.

    Python's reader goes by where the end itself is, PyTorch's by what it says: of a file made for that
    they read different directories.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 98))
        end = file.read().rjust(98, b"\0")
    large, locator, small = end[:56], end[56:76], end[76:]
    if small[:4] != b"PK\x05\x06" or small[20:] != b"\0\0":
        return None
    if locator[:4] != b"PK\x06\x07":
        return int.from_bytes(small[16:20], "little")
    if large[:4] != b"PK\x06\x06" or int.from_bytes(locator[8:16], "little") != size - 98:
        return None
    return int.from_bytes(large[48:56], "little")


def _check_sizes(path: Path) -> None:
    """Raise an error if a file says that it holds more than it does."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        begins_as_zip = file.read(len(_ZIP)) == _ZIP
    if begins_as_zip:
        with zipfile.ZipFile(path) as archive:
            if _place_of_directory(path) != archive.start_dir:
                raise pickle.UnpicklingError("it is a zip file that torch.save does not write")
            # Names as PyTorch's reader compares them.
            if len({name.lower() for name in archive.namelist()}) < len(archive.namelist()):
                raise pickle.UnpicklingError("it has two records of one name")
            records = {info.filename: info for info in archive.infolist()}
            if any(name.endswith("/constants.pkl") for name in records):
                raise pickle.UnpicklingError("it is a program of TorchScript, not a checkpoint")
            if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
                raise pickle.UnpicklingError("it is compressed, which torch.save does not do")
            if sum(info.file_size for info in records.values()) > size:
                raise pickle.UnpicklingError("its records are larger than the file")
            names = [name for name in records if name.split("/")[1:] == ["data.pkl"]]
            if len(names) != 1:
                raise pickle.UnpicklingError("it has no data.pkl")
            # As PyTorch itself finds it, which may see another file than Python in one made for that.
            content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
            folder = names[0].removesuffix(".pkl")
            for key, wanted in _stored(walk_pickle(io.BytesIO(content))).items():
                there = records.get(f"{folder}/{key}")
                if there is None or there.file_size < wanted:
                    raise pickle.UnpicklingError(f"{wanted} bytes of tensor {key} are not there")
        return
    if tarfile.is_tarfile(path):
        raise pickle.UnpicklingError("it is a tar file, as no PyTorch since 2017 has written")
    with open(path, "rb") as file:
        ids = [each for _ in range(_PICKLES) for each in walk_pickle(file)]
    if sum(_stored(ids).values()) > size:
        raise pickle.UnpicklingError("its tensors are larger than the file")
