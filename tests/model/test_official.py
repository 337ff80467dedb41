"""Checkpoints of the released program: its names, its pickles, and pickles that mean harm."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

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
    assert (config.core, config.d_ff, config.n_heads) == ("fmlp", 28, 1)
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
