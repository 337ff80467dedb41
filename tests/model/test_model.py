"""Scores, recommendations, saved models."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.errors import CheckpointError


def make(**options) -> LaresModel:
    torch.manual_seed(1)
    config = {"n_items": 40, "max_length": 5, "d_model": 16, "d_ff": 24, **options}
    return LaresModel(LaresConfig(**config)).eval()


def test_scores() -> None:
    model = make()
    items, lengths = torch.tensor([[4, 2, 7]]), torch.tensor([3])
    state = model.encoder(items, lengths).last
    expected = state @ model.encoder.item_embedding.weight.T
    torch.testing.assert_close(model.scores(items, lengths), expected)
    cosine = make(scores="cosine", tau=0.5).scores(items, lengths)
    assert cosine.abs().max() <= 2.0 + 1e-5


def test_recommend_is_the_top_of_the_scores() -> None:
    model = make()
    histories = [[4, 2, 7], [1], [9, 8, 7, 6, 5, 4, 3]]
    seen_kept = model.recommend(histories, 39, remove_history=False)
    for row, history in enumerate(histories):
        recent = torch.tensor([history[-5:]])
        scores = model.score_states(model.encoder(recent, torch.tensor([recent.shape[1]])).last)[0]
        scores[0] = float("-inf")
        assert seen_kept[row] == scores.argsort(descending=True)[:39].tolist()
    removed = model.recommend(histories, 39)
    for row, history in enumerate(histories):
        assert removed[row] == [item for item in seen_kept[row] if item not in history]


def test_recommend_leaves_the_mode_alone_and_ignores_dropout() -> None:
    model = make(dropout=0.5, attn_dropout=0.5).train()
    assert model.recommend([[1, 2]], 5) == model.recommend([[1, 2]], 5)
    assert model.training


@pytest.mark.parametrize(
    ("histories", "k", "message"),
    [
        ([[1], []], 3, "history 1 is empty"),
        ([[1, 40]], 3, "item id 40 in history 0, position 1: ids run from 1 to 39"),
        ([[0]], 3, "item id 0"),
        ([[1]], 0, "k is 0"),
        ([[1]], 40, "k is 40; it must be in 1..39"),
    ],
)
def test_recommend_errors(histories, k: int, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make().recommend(histories, k)
    assert message in str(caught.value)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = make(adapter="concat")
    model.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    loaded = LaresModel.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.recommend([[3, 4]], 5) == model.recommend([[3, 4]], 5)


@pytest.mark.parametrize("keep", [0, 7, 100, 2000, -1])
def test_truncated_weights(tmp_path: Path, keep: int) -> None:
    make().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or corrupt"):
        LaresModel.from_pretrained(tmp_path)


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        LaresModel.from_pretrained(tmp_path)
    make().save_pretrained(tmp_path)
    options = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**options, "d_modle": 3}))
    with pytest.raises(CheckpointError, match="did you mean 'd_model'"):
        LaresModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**options, "d_ff": 48}))
    with pytest.raises(CheckpointError, match=r"has shape \(2, 24, 16\)"):
        LaresModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        LaresModel.from_pretrained(tmp_path)


def test_nan_weights_are_not_saved_and_not_loaded(tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        model.encoder.core.up_bias[1, 2] = float("nan")
    with pytest.raises(CheckpointError, match=r"'encoder\.core\.up_bias' holds NaN"):
        model.save_pretrained(tmp_path)
    LaresModel.from_pretrained(tmp_path)  # the file from before is whole
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'encoder\.core\.up_bias' holds NaN"):
        LaresModel.from_pretrained(tmp_path)


def test_full_disk_keeps_the_old_model(tmp_path: Path) -> None:
    """A limit on file size stands for a disk that takes no more."""
    model = make()
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.encoder.item_embedding.weight.add_(1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="what was there before is untouched"):
            model.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*"))


def test_the_former_name_of_remove_history() -> None:
    model = LaresModel(LaresConfig(n_items=6, d_model=8, n_heads=2, d_ff=8)).eval()
    for call in (model.recommend, model.recommend_rows):
        with pytest.warns(DeprecationWarning, match="remove_history"):
            found = call([[1, 2, 3]], 5, remove_seen=False)
        assert sorted(found[0]) == [1, 2, 3, 4, 5]
        assert found == call([[1, 2, 3]], 5, remove_history=False)
