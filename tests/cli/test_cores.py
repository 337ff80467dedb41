"""Models on the other cores: end to end on the command line, text features and their files."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.cli import main
from lares.data import load_dataset
from lares.data.text_features import read_text_features, write_text_features
from lares.errors import ConfigError, DataError
from lares.evaluation import evaluate
from tests.cli.test_cli import SMALL, fails
from tests.training.helpers import small_config

N_ITEMS = 26  # of the interactions, padding included


def text_model(**options) -> LaresModel:
    config = LaresConfig(n_items=N_ITEMS, max_length=8, d_model=16, d_ff=16, **options)
    torch.manual_seed(0)
    model = LaresModel(config, torch.randn(N_ITEMS, 12))
    with torch.no_grad():
        for name, parameter in model.encoder.text.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter)), name
    return model


@pytest.mark.parametrize("core", ["filter", "bsarec", "text"])
def test_from_data_to_recommendations(
    core: str, interactions: Path, tmp_path: Path, capsys
) -> None:
    run, more = str(tmp_path / "run"), [f"--model.core={core}"]
    if core == "text":
        ids = load_dataset(interactions).vocabulary.ids.tolist()
        features = torch.nn.functional.one_hot(torch.arange(len(ids)) % 7).float()
        path = tmp_path / "texts.safetensors"
        # In another order than the catalogue's: rows are found by id.
        write_text_features(path, features.flip(0), [str(item) for item in ids[::-1]], {})
        more = [f"--model.text_features={path}", "--model.text_experts=2"]
    main(["train", str(interactions), "--out", run, "--trainer.max_epochs=6", *SMALL, *more])
    model = LaresModel.from_pretrained(Path(run) / "best")
    if core == "text":
        assert torch.equal(model.encoder.text.features[1:], features)
        path.unlink()  # the model has it
    else:
        assert model.encoder.core.config.window == 8
    dataset = load_dataset(interactions)
    found = evaluate(model, dataset.test, depths=[4], seed=2025)[4]
    result = json.loads((Path(run) / "result.json").read_text())
    assert found == pytest.approx(result["test"]["4"])
    small = evaluate(model, dataset.test, depths=[4], seed=2025, batch_size=7)[4]
    assert small == pytest.approx(found)

    main(["recommend", run, "--history", "3,4,6", "--k", "5"])
    assert len(capsys.readouterr().out.splitlines()[-1].split(",")) == 5
    main(["posttrain", run, "--out", run + "-rpt", "--trainer.max_epochs=1", *SMALL[3:]])
    tuned = LaresModel.from_pretrained(Path(run + "-rpt") / "best")
    assert tuned.config.has_text == (core == "text")


@pytest.mark.parametrize("core", ["filter", "bsarec"])
def test_a_shorter_batch_is_the_same_window(core: str) -> None:
    config = LaresConfig(n_items=N_ITEMS, max_length=8, d_model=16, d_ff=16, core=core)
    torch.manual_seed(0)
    model = LaresModel(config).train()
    history, lengths = torch.tensor([[3, 4, 6]]), torch.tensor([3])
    wanted = model.scores(history, lengths, seed=5)
    padded = torch.tensor([[3, 4, 6, 0, 9, 0, 0, 0]])  # ids beyond the length do not count
    assert torch.equal(model.scores(padded, lengths, seed=5), wanted)
    both = torch.tensor([[3, 4, 6, 0], [7, 8, 9, 10]])
    together = model.scores(both, torch.tensor([3, 4]), seed=5)
    assert torch.allclose(together[:1], wanted, atol=1e-6)
    plain = LaresModel(LaresConfig(**{**config.to_dict(), "n_core_layers": 0})).eval()
    assert plain.scores(history, lengths).shape == (1, N_ITEMS)


def test_whole_histories_are_refused(interactions: Path) -> None:
    """Their states are read as prefixes', which window mixers and text features do not give."""
    for model in (text_model(), LaresModel(LaresConfig(n_items=N_ITEMS, core="filter"))):
        with pytest.raises(ConfigError, match="mixed along the whole window"):
            model.encoder.token_states(torch.tensor([[3, 4]]), torch.tensor([2]), [1])
    with pytest.raises(ConfigError, match=r"core 'bsarec'.*; take 'prefixes'"):
        small_config(interactions, model={"core": "bsarec"}, sampling={"samples": "users"})


def test_text_noise_is_addressed_and_for_training_alone() -> None:
    model = text_model()
    history, lengths = torch.tensor([[3, 4, 6], [5, 2, 0]]), torch.tensor([3, 2])
    ids = torch.tensor([7, 9])

    def last(seed: int, rows: slice = slice(None)) -> torch.Tensor:
        out = model.encoder(history[rows], lengths[rows], 2, seed=seed, sequence_ids=ids[rows])
        return out.last

    model.train()
    first = last(1)
    torch.manual_seed(123)  # the global generator has no part in it
    assert torch.equal(last(1), first)
    assert not torch.equal(last(2), first)
    assert torch.allclose(last(1, slice(1, 2)), first[1:], atol=1e-6)
    model.eval()
    mixed = model.encoder.text.mix(torch.randn(2, 8, 12), ids, seed=1)
    text = torch.randn(2, 8, 12)
    assert torch.equal(
        model.encoder.text.mix(text, ids, seed=1), model.encoder.text.mix(text, ids, seed=2)
    )
    model.train()
    assert not torch.equal(
        model.encoder.text.mix(text, ids, seed=1), model.encoder.text.mix(text, ids, seed=2)
    )
    assert mixed.shape == (2, 8, 16)


def test_npy_features_and_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "texts.npy"
    features = np.random.default_rng(0).normal(size=(N_ITEMS, 5))
    np.save(path, features)
    config = LaresConfig(n_items=N_ITEMS, d_model=16, text_features=str(path))
    model = LaresModel(config)
    assert (model.config.text_width, model.config.text_features) == (5, "")
    assert np.allclose(model.encoder.text.features, features)
    np.save(path, features[1:])
    with pytest.raises(DataError, match=r"has shape \(25, 5\); text features must be \(26, D\)"):
        LaresModel(config)
    np.save(path, np.full((N_ITEMS, 5), np.nan))
    with pytest.raises(DataError, match="holds NaN"):
        LaresModel(config)
    with pytest.raises(DataError, match="there is no file"):
        read_text_features(tmp_path / "no.npy", N_ITEMS)
    named = tmp_path / "texts.safetensors"
    write_text_features(named, torch.ones(2, 3), ["a", "b"], {})
    with pytest.raises(DataError, match="names its rows by raw item ids"):
        read_text_features(named, 3)
    with pytest.raises(DataError, match="no text features for 1 of 2 items, among them c"):
        read_text_features(named, 3, ["a", "c"])
    with pytest.raises(DataError, match="two rows"):
        write_text_features(named, torch.ones(2, 3), ["a", "a"], {})
    with pytest.raises(ConfigError, match=r"text_features has shape \(3, 5\)"):
        LaresModel(LaresConfig(n_items=N_ITEMS), torch.zeros(3, 5))


class Encoder:
    """Stands for a sentence-transformers model: features are the texts' letters."""

    def __init__(self, name: str, device: str | None = None) -> None:
        if name != "letters":
            raise OSError(f"{name} is not a model")

    def encode(self, texts: list[str], **options) -> np.ndarray:
        return np.array([[text.count("a"), len(text), options["batch_size"]] for text in texts])


def test_embed(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title,brand\n7,banana,x\n3,,\n5,pear,\n")
    command = ["data", "embed", str(items), "--model", "letters", "--text_columns=title,brand"]
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert "pip install 'lares-kernels[text]'" in fails(capsys, *command)
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Encoder
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    main(command)
    assert "2 of 3 items have text, features 3 wide" in capsys.readouterr().out
    found = read_text_features(tmp_path / "items.safetensors", 4, [3, 5, 7])
    assert found.tolist() == [[0, 0, 0], [0, 0, 0], [1, 4, 64], [3, 8, 64]]
    assert "cannot load model 'words'" in fails(capsys, *command[:3], "--model", "words")
    assert "'name'" in fails(capsys, *command[:5], "--text_columns=name")
    items.write_text("item_id,title\n7,banana\n7,pear\n")
    assert "item '7' stands in rows 1 and 2" in fails(capsys, *command[:5])
