"""Pickles: what ``torch.save`` writes is read, in every form; what would take more is not."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lares.errors import CheckpointError
from lares.integrations.pickle_walk import walk_pickle
from lares.integrations.safe_pickle import load_pickle

forms = pytest.mark.parametrize(
    "options",
    [
        {},
        {"pickle_protocol": 3},
        {"pickle_protocol": 4},
        {"pickle_protocol": 5},
        {"_use_new_zipfile_serialization": False},
        {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
    ],
    ids=str,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 4), nn.BatchNorm1d(4), nn.Linear(4, 7, bias=False))
    net[2].weight = net[0].weight  # tied
    return net


def saved_things() -> dict[str, Any]:
    net = network()
    net(torch.arange(7)).sum().backward()
    adam = torch.optim.Adam(net.parameters())
    adam.step()
    half = torch.randn(3, 5).bfloat16()
    nested: Any = [1.5]
    for _ in range(150):
        nested = {"of": nested, "and": (nested, "x")} if len(str(nested)) < 5000 else [nested]
    return {
        "state_dict": net.state_dict(),
        "plain dict": dict(net.state_dict()),
        "parameters": dict(net.named_parameters()),
        "buffers": list(net.buffers()),
        "optimizer": adam.state_dict(),
        "all": {"state_dict": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3},
        "ordered": collections.OrderedDict([("b", half), ("a", half[:2]), ("t", half.mT)]),
        "types": [
            torch.ones(2).to(t) for t in (torch.float16, torch.int8, torch.bool, torch.int64)
        ],
        "empty": {"none": torch.zeros(0, 4), "scalar": torch.tensor(2.5)},
        "nothing": {"list": [], "tuple": (), "bytes": b"", "set": set(), "text": "", "dict": {}},
        "many": {f"layers.{i}.weight": torch.full((2,), float(i)) for i in range(400)},
        "numbers": {"ids": list(range(5_000)), "names": [f"item {i}" for i in range(1000)]},
        "keys": {(i, f"{i}", (i, None)): i for i in range(500)},
        "sets": {
            "set": set(range(900)),
            "frozen": frozenset("abc"),
            "bytes": bytes(range(256)) * 20,
        },
        "array": {"bytes": bytearray(b"y" * 3000), "size": torch.Size([2, 3]), "c": 1 + 2j},
        "big whole numbers": [2**70, -(2**2000), 1e300, True, None],
        "nested": nested,
    }


THINGS = saved_things()


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return found.dtype == wanted.dtype and torch.equal(found, wanted)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (list, tuple)):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


@forms
@pytest.mark.parametrize("what", THINGS)
def test_what_is_saved_is_read(what: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.save(THINGS[what], tmp_path / "model.pth", **options)
    found = load_pickle(tmp_path / "model.pth")
    assert same(found, THINGS[what])
    if what == "state_dict":
        assert found["0.weight"].data_ptr() == found["2.weight"].data_ptr()


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def raw(size: int) -> bytes:
    return b"B" + struct.pack("<I", size) + b"x" * size


def text_of(size: int) -> bytes:
    return b"X" + struct.pack("<I", size) + b"x" * size


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


NUMBERS = (
    b"](" + b"".join(b"M" + struct.pack("<H", i) for i in range(50_000)) + b"e" + put(0) + b"0"
)
SET, FROZEN, ARRAY = (named("builtins", kind) for kind in ("set", "frozenset", "bytearray"))
ORDERED, SIZE = named("collections", "OrderedDict"), named("torch", "Size")
STRANGE = named("some.where", "Thing")
MOST = 5_000
HARMFUL = {
    "tuples in tuples, as a key": b"}K\x01" + b"\x85" * 2_000_000 + b"K\x01s",
    "tuples in tuples, in a set": b"\x8f(K\x01" + b"\x85" * MOST + b"\x90",
    "tuples of the stack": b"(" * MOST + b"t" * MOST,
    "frozen sets in frozen sets": b"(" * MOST + b"\x91" * MOST,
    "lists in lists": b"]" * MOST + b"a" * (MOST - 1),
    "lists of the stack": b"(" * MOST + b"l" * MOST,
    "dicts in dicts": b"}" + b"N}" * MOST + b"s" * MOST,
    "objects in objects": (STRANGE + put(1)) + get(1) * MOST + b")R" + b"\x85R" * MOST,
    "states in states": STRANGE + put(1) + b"0" + (get(1) + b")R") * MOST + b"b" * (MOST - 1),
    "a tuple twice in a tuple, as a key": b"}K\x01" + b"2\x86" * 40 + b"Ns",
    "a tuple twice in a tuple, in a set": SET + b"](K\x01" + b"2\x86" * 40 + b"e\x85R",
    "a tuple twice in a tuple, frozen": b"(K\x01" + b"2\x86" * 40 + b"\x91",
    "a tuple twice in a tuple, in dict": b"(K\x01" + b"2\x86" * 40 + b"Nd",
    "one long key again and again": (
        b"(" + b"K\x01" * 50_000 + b"t" + put(0) + b"0}" + b"(" + (get(0) + b"N") * 20_000 + b"u"
    ),
    "a place far out": b"]" + put(1 << 26),
    "a place farther out": b"]" + put((1 << 32) - 1),
    "a place in words": b"]p99999999\n",
    "a negative place": b"]p-1\n",
    "copies of a frozen set": NUMBERS + b"](" + (FROZEN + get(0) + b"\x85R") * 300 + b"e",
    "copies of a set": NUMBERS + SET + put(1) + b"](" + (get(1) + get(0) + b"\x85R") * 300 + b"e",
    "copies by a new object": NUMBERS
    + SET
    + put(1)
    + b"]("
    + (get(1) + get(0) + b"\x85\x81") * 300
    + b"e",
    "copies by instances": NUMBERS + b"](" + (b"(" + get(0) + b"ibuiltins\nset\n") * 300 + b"e",
    "copies by objects": NUMBERS
    + SET
    + put(1)
    + b"]("
    + (b"(" + get(1) + get(0) + b"o") * 300
    + b"e",
    "copies of sizes": NUMBERS + SIZE + put(1) + b"](" + (get(1) + get(0) + b"\x85R") * 300 + b"e",
    "bytes joined": ARRAY + b"(" + raw(1_000_000) + put(0) + get(0) * 800 + b"tR",
    "bytes copied": raw(1_000_000) + put(0) + b"0](" + (ARRAY + get(0) + b"\x85R") * 800 + b"e",
    "text encoded": (
        text_of(1_000_000)
        + put(0)
        + b"0X\x06\x00\x00\x00latin1"
        + put(1)
        + b"0]("
        + (named("_codecs", "encode") + get(0) + get(1) + b"\x86R") * 800
        + b"e"
    ),
    "classes without end": b"".join(named("m", f"n{i}") + b"0" for i in range(20_000)) + b"N",
    "an extension": b"\x82\x01",
    "more than is there": b"aaaa",
    "a mark that is not there": b"Nt",
    "what is before a mark": b"]K\x01(\x86",
    "a place never filled": get(3),
    "no end": b"]" * 5,
    "no opcode": b"\xff",
    "a string without end": b"X\xff\xff\xff\x7fabc",
    "bytes without end": b"\x8e" + struct.pack("<Q", 1 << 40) + b"abc",
}


def in_zip(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")


def in_a_stream(path: Path, content: bytes, keys: bytes | None = None) -> None:
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, sizes)]
    path.write_bytes(b"".join([*parts, content, pickle.dumps([], 2) if keys is None else keys]))


@pytest.mark.parametrize("what", HARMFUL)
def test_what_would_take_more_than_it_is_is_refused(what: str, tmp_path: Path) -> None:
    end = b"" if what == "no end" else b"."
    content = b"\x80\x04" + HARMFUL[what] + end
    with pytest.raises((pickle.UnpicklingError, ValueError)):  # before anything is made
        walk_pickle(io.BytesIO(content))
    path = tmp_path / "model.pth"
    in_zip(path, content)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_pickle(path)
    in_a_stream(path, content)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_pickle(path)
    in_a_stream(path, pickle.dumps({"epoch": 1}, 2), content)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_pickle(path)


def test_the_forms_of_these_files_are_read(tmp_path: Path) -> None:
    """So that what is refused above is not refused for its form."""
    for write in (in_zip, in_a_stream):
        write(tmp_path / "model.pth", pickle.dumps({"epoch": 1}, 2))
        assert load_pickle(tmp_path / "model.pth") == {"epoch": 1}


def test_the_walk_ends_where_the_pickle_does() -> None:
    first, second = pickle.dumps(THINGS["numbers"], 2), pickle.dumps([1], 4)
    file = io.BytesIO(first + second + b"raw")
    walk_pickle(file)
    assert file.tell() == len(first)
    walk_pickle(file)
    assert file.read() == b"raw"


@pytest.mark.parametrize("kind", ["set", "frozenset", "OrderedDict", "Size"])
def test_a_tensors_elements_are_not_made_objects(kind: str, tmp_path: Path) -> None:
    """They are hundreds of bytes each, of a tensor of a byte each."""
    of = {
        "set": set,
        "frozenset": frozenset,
        "OrderedDict": collections.OrderedDict,
        "Size": torch.Size,
    }

    class Made:
        def __reduce__(self) -> Any:
            return of[kind], (torch.zeros(8, 2, dtype=torch.uint8),)

    torch.save({"a": Made()}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="not made of a container"):
        load_pickle(tmp_path / "model.pth")


def test_a_stream_with_a_zip_behind_it(tmp_path: Path) -> None:
    """Python looks for a zip file at the end, PyTorch at the beginning."""
    in_zip(tmp_path / "zip", pickle.dumps({"epoch": 1}, 2))
    path = tmp_path / "model.pth"
    in_a_stream(path, b"\x80\x02" + HARMFUL["tuples in tuples, as a key"] + b".")
    with open(path, "ab") as file:
        file.write((tmp_path / "zip").read_bytes())
    assert zipfile.is_zipfile(path)
    with pytest.raises(CheckpointError, match="nests containers"):
        load_pickle(path)


def test_a_zip_whose_directory_is_elsewhere(tmp_path: Path) -> None:
    """One that comes after another is read by where it is, or by where it says that it is."""
    torch.save({"epoch": 1}, tmp_path / "large.pth")
    in_zip(tmp_path / "small.pth", pickle.dumps({"epoch": 1}, 2))
    for name in ("large.pth", "small.pth"):
        path = tmp_path / name
        assert load_pickle(path) == {"epoch": 1}
        whole = path.read_bytes()
        for damaged in (whole + whole, whole + b"end", whole[:-2] + b"\3\0end"):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
                load_pickle(path)


def test_a_zip_that_two_readers_read_differently(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    good, other = (pickle.dumps({"epoch": epoch}, 2) for epoch in (1, 2))
    for name in ("model/data.pkl", "model/DATA.PKL"):
        in_zip(path, good)
        with (
            zipfile.ZipFile(path, "a") as archive,
            pytest.warns() if name.islower() else io.BytesIO(),
        ):
            archive.writestr(name, other)
        with pytest.raises(CheckpointError, match="two records of one name"):
            load_pickle(path)
    in_zip(path, good)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/constants.pkl", other)
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_pickle(path)


KEYS = {
    "NaN": b"G" + struct.pack(">d", float("nan")),
    "a number": b"K\x00",
    "bytes": b"C\x010",
    "a tuple": b"K\x00\x85",
    "nothing": b"N",
}


@pytest.mark.parametrize("kind", KEYS)
def test_what_is_stored_is_named_by_text(kind: str, tmp_path: Path) -> None:
    """A NaN is no other NaN: each would be read as a storage of its own, of the size of the file."""
    names = {"NaN": "nan", "a number": "0", "bytes": "b'0'", "a tuple": "(0,)", "nothing": "None"}

    def content(key: bytes, more: bytes = b"") -> bytes:
        stored = (
            b"(" + pickle.dumps("storage", 2)[2:-1] + named("torch", "FloatStorage") + key
        ) + (pickle.dumps("cpu", 2)[2:-1] + b"K\x02" + more + b"tQ")
        tensor = named("torch._utils", "_rebuild_tensor_v2") + b"(" + stored
        tensor += b"K\x00K\x02\x85K\x01\x85\x89N" + b"tR"
        return b"\x80\x03](" + tensor * 3 + b"e."

    def archive(path: Path, key: bytes, name: str) -> None:
        writer = torch._C.PyTorchFileWriter(str(path))
        for record, data in (("data.pkl", content(key)), (f"data/{name}", b"\0" * 8)):
            writer.write_record(record, data, len(data))
        writer.write_record("version", b"3\n", 2)
        writer.write_end_of_file()

    path = tmp_path / "model.pth"
    archive(path, b"X\x01\x00\x00\x000", "0")
    assert [tensor.tolist() for tensor in load_pickle(path)] == [[0.0, 0.0]] * 3
    archive(path, KEYS[kind], names[kind])
    with pytest.raises(CheckpointError, match="is no key of what is stored"):
        load_pickle(path)
    in_a_stream(path, content(KEYS[kind], b"N"))
    with pytest.raises(CheckpointError, match="is no key of what is stored"):
        load_pickle(path)
