"""Checkpoints of the released program: its names, its pickles, and pickles that mean harm."""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lares import LaresModel
from lares.errors import CheckpointError, ConfigError
from lares.integrations.official import (
    config_from_official,
    load_official,
    load_official_file,
    official_state_dict,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "lares_concat.safetensors"


class Config:
    """Stands for the configuration object that the released program pickles."""

    def __init__(self, options: dict) -> None:
        self.final_config_dict = options


@pytest.fixture
def released() -> tuple[dict, dict]:
    with safe_open(GOLDEN, framework="pt") as file:
        weights = {
            key.removeprefix("param."): file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118
            if key.startswith("param.")
        }
        config = json.loads(file.metadata()["config"])
    return weights, {**config, "model": "LARES", "n_items": len(weights["item_embedding.weight"])}


def test_names_go_there_and_back(released) -> None:
    weights, config = released
    back = official_state_dict(load_official(weights, config))
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("name", ["BSARec", "FMLPRec", "TedRec"])
def test_names_of_other_programs_go_there_and_back(name: str, tmp_path: Path) -> None:
    with safe_open(GOLDEN.with_name(f"{name.lower()}.safetensors"), framework="pt") as file:
        keys = [key for key in file.keys() if key.startswith("param.")]  # noqa: SIM118
        weights = {key.removeprefix("param."): file.get_tensor(key) for key in keys}
        config = {**json.loads(file.metadata()["config"]), "model": name}
    torch.save({"state_dict": weights, "config": config}, tmp_path / "model.pth")
    model = load_official_file(tmp_path / "model.pth")
    model.save_pretrained(tmp_path / "ours")
    back = official_state_dict(LaresModel.from_pretrained(tmp_path / "ours"))
    assert back.keys() == weights.keys()
    for key, tensor in weights.items():
        assert torch.equal(back[key], tensor), key


@pytest.mark.parametrize("wrap", [Config, dict])
def test_pth_file(released, tmp_path: Path, wrap) -> None:
    weights, config = released
    del config["n_items"]
    torch.save(
        {"state_dict": weights, "config": wrap(config), "optimizer": {"step": 3}},
        tmp_path / "model.pth",
    )
    model = load_official_file(tmp_path / "model.pth")
    expected = load_official(weights, {**config, "n_items": len(weights["item_embedding.weight"])})
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_as_a_module_gives_it(released, tmp_path: Path, legacy: bool) -> None:
    """It is an ordered dictionary with an attribute, ``_metadata``."""
    weights, config = released
    holder = torch.nn.Module()
    for name, tensor in weights.items():
        *folders, last = name.split(".")
        at = holder
        for folder in folders:
            if folder not in at._modules:
                at.add_module(folder, torch.nn.Module())
            at = at._modules[folder]
        at.register_buffer(last, tensor)
    saved = {"state_dict": holder.state_dict(), "config": config}
    assert hasattr(saved["state_dict"], "_metadata")
    torch.save(saved, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    model = load_official_file(tmp_path / "model.pth")
    for name, tensor in load_official(weights, config).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


class Harmful:
    """Creates a file when unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_cannot_run_code(released, tmp_path: Path, legacy: bool) -> None:
    weights, config = released
    mark = tmp_path / "harmed"
    saved = {"state_dict": weights, "config": config, "extra": Harmful(mark)}
    torch.save(saved, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    load_official_file(tmp_path / "model.pth")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Harmful(mark))).close()  # the trap does work
    assert mark.exists()


def test_broken_files(released, tmp_path: Path) -> None:
    weights, config = released
    path = tmp_path / "model.pth"
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        load_official_file(path)
    torch.save({"state_dict": weights, "config": config}, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model\.pth cannot be read"):
        load_official_file(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no 'state_dict'"):
        load_official_file(path)
    torch.save({"state_dict": weights}, path)
    with pytest.raises(CheckpointError, match="holds no configuration"):
        load_official_file(path)


def test_a_filter_core_needs_no_options_of_attention() -> None:
    options = {"model": "FMLPRec", "n_items": 5, "MAX_ITEM_LIST_LENGTH": 4, "hidden_size": 7}
    config = config_from_official(options)
    assert (config.core, config.d_ff, config.n_heads) == ("filter", 28, 1)
    with pytest.raises(ConfigError, match="'n_heads'"):
        config_from_official({**options, "model": "BSARec"})


def test_what_does_not_fit(released) -> None:
    weights, config = released
    with pytest.raises(CheckpointError, match=r"no tensor 'adapter\.weight'"):
        load_official({k: v for k, v in weights.items() if k != "adapter.weight"}, config)
    with pytest.raises(CheckpointError, match="no place for: \\['more'\\]"):
        load_official({**weights, "more": torch.zeros(1)}, config)
    with pytest.raises(CheckpointError, match="'item_embedding.weight' has shape"):
        load_official({**weights, "item_embedding.weight": torch.zeros(3, 3)}, config)
    for change, message in (
        ({"model": "TedRec"}, "has no 'plm_size'"),
        ({"model": "GRU"}, "it must be one of LARES, BSARec, FMLPRec, TedRec"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_official(weights, {**config, **change})
    lost = dict(config)
    del lost["hidden_size"]
    with pytest.raises(ConfigError, match="'hidden_size'"):
        load_official(weights, lost)


@pytest.mark.parametrize("model", ["LARES", "FMLPRec", "BSARec", "TedRec"])
@pytest.mark.parametrize("value", [None, [], {}, ["add"], "x", -1, 10**30, object(), torch.ones(2)])
def test_options_of_other_types(released, model: str, value: object) -> None:
    weights, config = released
    config = {**config, "model": model, "plm_size": 4, "n_heads": 2, "inner_size": 16}
    for name in ("hidden_size", "n_pre_layers", "n_core_layers", "adapter_type", "hidden_act"):
        with pytest.raises((ConfigError, CheckpointError)):
            load_official(weights, {**config, name: value})


@pytest.mark.parametrize("value", [None, 3, "x", [1], torch.ones(2)])
def test_what_is_no_checkpoint(released, value: Any) -> None:
    weights, config = released
    with pytest.raises(CheckpointError, match="it must hold tensors by name"):
        load_official(value, config)
    with pytest.raises(ConfigError, match="it must be a mapping"):
        load_official(weights, value)


NO_TENSORS = {
    "none": lambda table: None,
    "text": lambda table: "x",
    "array": lambda table: table.numpy(),
    "whole numbers": lambda table: table.long(),
    "truth": lambda table: table.bool(),
    "complex": lambda table: table.to(torch.complex64),
    "eight bits": lambda table: table.to(torch.float8_e4m3fn),
    "sparse": lambda table: table.to_sparse(),
    "meta": lambda table: table.to("meta"),
}


@pytest.mark.parametrize("kind", NO_TENSORS)
@pytest.mark.parametrize("name", ["item_embedding.weight", "layernorm_1.weight"])
def test_what_is_no_tensor_of_real_numbers(released, kind: str, name: str) -> None:
    weights, config = released
    wrong = {**weights, name: NO_TENSORS[kind](weights[name])}
    with pytest.raises(CheckpointError, match=f"'{name}' is no tensor of real numbers"):
        load_official(wrong, config)


def test_files_of_other_tensors(released, tmp_path: Path) -> None:
    weights, config = released
    path = tmp_path / "model.pth"
    for change, message in (
        ({"item_embedding.weight": torch.tensor(1.0)}, "no matrix 'item_embedding.weight'"),
        ({"item_embedding.weight": None}, "'item_embedding.weight' is no tensor"),
        ({3: torch.zeros(1)}, "3 is no tensor"),
        ({3: torch.zeros(1), "more": torch.zeros(1)}, "3 is no tensor"),
    ):
        torch.save({"state_dict": {**weights, **change}, "config": config}, path)
        with pytest.raises(CheckpointError, match=message) as error:
            load_official_file(path)
        assert str(path) in str(error.value)
    torch.save({"state_dict": weights, "config": config}, path)
    for n_items in (0, -1, True, 9.5, "many"):
        with pytest.raises(ConfigError, match="n_items is"):
            load_official_file(path, n_items)  # type: ignore[arg-type]


def pickled_with_build(path: Path, module: str, name: str, state: object, content: dict) -> None:
    """``content`` as torch.save writes it, its pickle begun by setting a global's state."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    (main,) = [name for name in records if name.endswith("data.pkl")]
    attack = f"c{module}\n{name}\n".encode() + pickle.dumps(state, 2)[2:-1] + b"b0"
    records[main] = records[main][:2] + attack + records[main][2:]
    with zipfile.ZipFile(path, "w") as archive:
        for record, data in records.items():
            archive.writestr(record, data)


@pytest.mark.parametrize("state", [{"harm": 1}, (None, {"harm": 1}), (None, {"__name__": "harm"})])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch", "Size"),
        ("torch", "nn"),
        ("torch.nn.functional", "linear"),
        ("builtins", "print"),
    ],
)
def test_pickles_cannot_change_torch(released, tmp_path: Path, module, name, state) -> None:
    weights, config = released
    path = tmp_path / "model.pth"
    target = getattr(importlib.import_module(module), name)
    before = (target.__name__, sorted(vars(target)) if hasattr(target, "__dict__") else [])
    pickled_with_build(path, module, name, state, {"state_dict": weights, "config": config})
    with contextlib.suppress(CheckpointError):  # an inert class may be set
        load_official_file(path)
    assert not hasattr(target, "harm")
    assert before == (target.__name__, sorted(vars(target)) if hasattr(target, "__dict__") else [])


def test_files_that_promise_more_than_they_hold(released, tmp_path: Path) -> None:
    weights, config = released
    path = tmp_path / "model.pth"
    wide = {**weights, "item_embedding.weight": torch.zeros(1).expand(10**6, 10**6)}
    torch.save({"state_dict": wide, "config": config}, path)
    with pytest.raises(CheckpointError, match="larger than what is stored"):
        load_official_file(path)
    for absurd in (
        {"hidden_size": 10**9},
        {"MAX_ITEM_LIST_LENGTH": 10**12},
        {"inner_size": 10**18},
    ):
        torch.save({"state_dict": weights, "config": {**config, **absurd}}, path)
        with pytest.raises((CheckpointError, ConfigError)):
            load_official_file(path)
    # Compressed, it would grow on being read.
    torch.save({"state_dict": weights, "config": config}, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    with pytest.raises(CheckpointError, match="compressed"):
        load_official_file(path)
    # A record that is shorter than its tensor.
    with zipfile.ZipFile(path, "w") as archive:
        for record, data in records.items():
            archive.writestr(record, data[:4] if "/data/" in record else data)
    with pytest.raises(CheckpointError, match="are not there"):
        load_official_file(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE])
def test_tar_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "model.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    with pytest.raises(CheckpointError, match="tar file"):
        load_official_file(path)


def test_a_stream_that_promises_more_than_it_holds(released, tmp_path: Path) -> None:
    weights, config = released
    path = tmp_path / "model.pth"
    torch.save(
        {"state_dict": weights, "config": config}, path, _use_new_zipfile_serialization=False
    )
    count = weights["item_embedding.weight"].numel()
    old, new = (b"J" + struct.pack("<i", n) for n in (count, 2**31 - 1))
    if count < 2**16:
        old = b"M" + struct.pack("<H", count)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(CheckpointError, match="larger than the file"):
        load_official_file(path)
