"""Weights that are not what was saved, or no numbers: noticed before anything is computed from them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lares import LaresConfig, LaresModel
from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, WeightsError
from lares.tensor_files import read_tensors, write_tensors

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.arange(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0, dtype=torch.float64),
}


def make(**options) -> LaresModel:
    torch.manual_seed(1)
    config = LaresConfig(n_items=21, max_length=5, d_model=16, d_ff=24, **options)
    return LaresModel(config, vocabulary=Vocabulary(np.arange(5, 65, 3))).eval()


def header_length(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "pt", "kind": "test"},
        {f"{letter}{n}": 'é\x00\x1f\x7f"\\/\n\u2028😀' * n for n in range(9) for letter in "zaü"},
    ],
    ids=["none", "two", "many letters"],
)
def test_the_same_content_is_the_same_bytes(metadata: dict[str, str], tmp_path: Path) -> None:
    """In whatever order names and marks were given; and what is read is what was written."""
    written = []
    for turn in range(6):
        path = tmp_path / f"{turn}.safetensors"
        backwards = turn % 2
        write_tensors(
            path,
            dict(sorted(TENSORS.items(), reverse=backwards)),
            dict(sorted(metadata.items(), reverse=backwards)),
        )
        tensors, found = read_tensors(path)
        assert metadata.items() <= found.items()
        assert all(tensors[name].equal(tensor) for name, tensor in TENSORS.items())
        assert header_length(path.read_bytes()) % 8 == 0  # so that tensors stay aligned
        written.append(path.read_bytes())
    assert len(set(written)) == 1


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    for place in ("one", "two", "three"):
        make().save_pretrained(tmp_path / place)
    LaresModel.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "again")
    for name in ("config.json", "items.json", "model.safetensors"):
        assert len({file.read_bytes() for file in tmp_path.glob(f"*/{name}")}) == 1


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF], ids=hex)
def test_any_flipped_byte_is_noticed(tmp_path: Path, change: int) -> None:
    """Or changes nothing: a blank of the header that becomes another blank."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"kind": "test"})
    whole, (tensors, metadata) = path.read_bytes(), read_tensors(path)
    noticed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= change
        path.write_bytes(damaged)
        try:
            found = read_tensors(path)
        except CheckpointError:
            noticed += 1
            continue
        assert place < header_length(whole)
        assert found[1] == metadata
        assert all(found[0][name].equal(tensor) for name, tensor in tensors.items())
    assert noticed > len(whole) - 10


@pytest.mark.parametrize("place", [0.001, 0.25, 0.5, 0.75, 0.999])
def test_a_damaged_model_is_not_loaded(tmp_path: Path, place: float) -> None:
    make().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = header_length(content)
    content[start + int(place * (len(content) - start))] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is corrupt: .* checksum"):
        LaresModel.from_pretrained(tmp_path)


def test_files_of_others_have_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for metadata in (None, {"format": "pt"}, {"format": "pt", "made_by": "another program"}):
        save_file(TENSORS, path, metadata)
        found, _ = read_tensors(path)
        assert found.keys() == TENSORS.keys()


def test_others_read_our_files(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", TENSORS, {})
    found = load_file(tmp_path / "x.safetensors")
    assert all(found[name].equal(tensor) for name, tensor in TENSORS.items())


BROKEN = {
    "item": ("encoder.item_embedding.weight", (7, 3), "(item 23)"),
    "item of no history": ("encoder.item_embedding.weight", (20, 0), "(item 62)"),
    "padding": ("encoder.item_embedding.weight", (0, 0), "first at [0, 0]:"),
    "position": ("encoder.position_embedding.weight", (4, 0), "first at [4, 0]:"),
    "core": ("encoder.core.up_bias", (1, 2), "first at [1, 2]:"),
    "norm": ("encoder.input_norm.bias", (3,), "first at [3]:"),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("kind", BROKEN)
def test_weights_that_are_no_numbers(kind: str, value: float) -> None:
    name, place, told = BROKEN[kind]
    model = make()
    before = model.recommend([[5, 8]], 3)
    weight = model.state_dict(keep_vars=True)[name]
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[place] = value
    for ask in (model.recommend, model.recommend_rows):
        with pytest.raises(WeightsError) as caught:
            ask([[5, 8]], 3)
        assert f"tensor {name!r} holds NaN or infinity" in str(caught.value)
        assert told in str(caught.value)
    with torch.no_grad():
        weight.copy_(kept)
    assert model.recommend([[5, 8]], 3) == before


def test_weights_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lares.model import model as module

    looks, look = [], module.first_non_finite
    monkeypatch.setattr(
        module, "first_non_finite", lambda weights: looks.append(1) or look(weights)
    )
    model = make()
    for _ in range(3):
        model.recommend([[5, 8]], 3)
    assert len(looks) == 1
    model.double()
    model.recommend([[5, 8]], 3)
    model.load_state_dict(model.state_dict())
    model.recommend([[5, 8]], 3)
    assert len(looks) == 3


def test_states_that_overflow() -> None:
    """Every weight is a number, what comes of them is none."""
    model = make(norm="pre").half()
    with torch.no_grad():
        for parameter in model.encoder.core.parameters():
            parameter.fill_(6e4)
    with pytest.raises(WeightsError, match="too large for their precision"):
        model.recommend([[5, 8]], 3)


def test_a_model_of_inference_mode() -> None:
    with torch.inference_mode():
        model = make()
        assert model.recommend([[5, 8]], 3) == make().recommend([[5, 8]], 3)
        model.encoder.item_embedding.weight[4] = float("nan")
        with pytest.raises(WeightsError, match=r"\(item 14\)"):
            model.recommend([[5, 8]], 3)
