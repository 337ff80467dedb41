"""Numbers of NumPy and PyTorch are numbers, wherever one is taken, and are saved as plain ones."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lares import LaresConfig, LaresModel
from lares.data import load_dataset
from lares.errors import ConfigError
from lares.evaluation import evaluate, evaluate_popularity, metrics_from_ranks
from lares.evaluation.evaluate import depth_ranks
from lares.objectives.rpt.config import RptConfig
from lares.objectives.spt.config import SptConfig
from lares.plain import plain
from lares.training.config import (
    DataOptions,
    OptimizerOptions,
    PosttrainConfig,
    SamplingOptions,
    StartOptions,
    TrainConfig,
    TrainerOptions,
)
from lares_kernels import CoreConfig

WHOLE = [np.int64, np.int32, np.uint8, torch.tensor, np.array, int]
REAL = [np.float32, np.float64, np.float16, torch.tensor, np.array, float]
DATACLASSES = [
    LaresConfig(9, d_model=16),
    SptConfig(),
    RptConfig(),
    DataOptions(),
    SamplingOptions(overlap=1),
    OptimizerOptions(),
    TrainerOptions(num_threads=1),
    StartOptions(),
]


def in_other_types(options: object, whole, real) -> dict:
    """Fields of a dataclass with its numbers as scalars of other kinds."""
    found = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, bool):
            value = np.bool_(value)
        elif isinstance(value, int) and value < 200:
            value = whole(value)
        elif isinstance(value, float) and value == float(np.float16(value)):
            value = real(value)
        elif isinstance(value, list):
            value = tuple(whole(element) for element in value)
        found[field.name] = value
    return found


@pytest.mark.parametrize("options", DATACLASSES, ids=lambda options: type(options).__name__)
@pytest.mark.parametrize(("whole", "real"), list(zip(WHOLE, REAL, strict=True)))
def test_options(options, whole, real) -> None:
    found = type(options)(**in_other_types(options, whole, real))
    assert dataclasses.asdict(found) == dataclasses.asdict(options)
    for value in dataclasses.asdict(found).values():
        assert type(value) in (int, float, bool, str, list, type(None))
    assert yaml.safe_dump(dataclasses.asdict(found)) == yaml.safe_dump(dataclasses.asdict(options))


@pytest.mark.parametrize(("whole", "real"), list(zip(WHOLE, REAL, strict=True)))
@pytest.mark.parametrize("mixer", ["attention", "bsarec"])
def test_options_of_a_core(mixer: str, whole, real) -> None:
    window = 6 if mixer == "bsarec" else 0
    options = CoreConfig(16, 2, 24, 1, mixer=mixer, window=window, dropout=0.5, eps=2**-10)
    found = CoreConfig(**in_other_types(options, whole, real))
    assert found == options
    assert found.key == options.key
    assert all(type(value) in (int, float, str) for value in found.to_dict().values())
    assert CoreConfig(state_omega=3, state_sigma=1).key == CoreConfig().key


@pytest.mark.parametrize("n_core_layers", [0, 1])
@pytest.mark.parametrize("kind", WHOLE)
def test_the_encoders_numbers(n_core_layers: int, kind) -> None:
    depth = 3 if n_core_layers else 0
    encoder = LaresModel(LaresConfig(9, d_model=16, n_core_layers=n_core_layers)).encoder.eval()
    items, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    wanted = encoder(items, lengths, num_steps=depth, seed=3).last
    found = encoder(items, lengths, num_steps=kind(depth), seed=kind(3), rollouts=kind(1)).last
    assert torch.equal(found, wanted)
    if n_core_layers:
        wanted = encoder(items, lengths, num_steps=depth, rollouts=2).last
        found = encoder(items, lengths, num_steps=kind(depth), rollouts=kind(2)).last
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("n_core_layers", [0, 1])
@pytest.mark.parametrize(
    "wrong", [True, False, np.True_, np.False_, torch.tensor(True), 1.0, 0.0, np.float64(1), "1"]
)
def test_what_is_no_number_of_the_encoder(n_core_layers: int, wrong) -> None:
    encoder = LaresModel(LaresConfig(9, d_model=16, n_core_layers=n_core_layers)).encoder.eval()
    items, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    for name in ("num_steps", "rollouts", "seed"):
        with torch.no_grad(), pytest.raises((TypeError, ValueError), match=name):
            encoder(items, lengths, **{name: wrong})


@pytest.mark.parametrize("options", DATACLASSES, ids=lambda options: type(options).__name__)
@pytest.mark.parametrize("wrong", ["x", [1, 2], np.array([1, 2]), {}, torch.ones(2), 1j])
def test_what_is_no_number(options, wrong) -> None:
    for field in dataclasses.fields(options):
        if field.type in ("int", "float", "int | None", "float | None", "bool"):
            with pytest.raises(ConfigError, match=field.name):
                dataclasses.replace(options, **{field.name: wrong})
        if field.type == "int":
            for real in (2.0, np.float32(2), torch.tensor(2.0), True, None):
                with pytest.raises(ConfigError, match=field.name):
                    dataclasses.replace(options, **{field.name: real})


@pytest.mark.parametrize("options", DATACLASSES, ids=lambda options: type(options).__name__)
@pytest.mark.parametrize("wrong", ["none of them", 1, True, ["dot"], np.array(["a", "b"]), {}])
def test_what_is_no_choice(options, wrong) -> None:
    for name, kind in typing.get_type_hints(type(options)).items():
        if typing.get_origin(kind) is typing.Literal:
            choices = ", ".join(typing.get_args(kind))
            with pytest.raises(ConfigError, match=f"{name} is .*; it must be one of {choices}$"):
                dataclasses.replace(options, **{name: wrong})
            for choice in typing.get_args(kind):
                assert getattr(dataclasses.replace(options, **{name: choice}), name) == choice


def test_plain() -> None:
    for value in (3, 3.5, True, "text", None, [1], (1,), {}):
        assert plain(value) is value
    for value in (np.int64(3), np.array(3), torch.tensor(3), np.uint8(3)):
        assert type(plain(value)) is int
    array = np.array([3])
    assert plain(array) is array


@pytest.mark.parametrize("whole", WHOLE)
def test_models(whole, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = LaresModel(LaresConfig(n_items=30, d_model=16, d_ff=16, max_length=5)).eval()
    torch.manual_seed(0)
    config = LaresConfig(
        n_items=whole(30), d_model=whole(16), d_ff=whole(16), max_length=whole(5), tau=np.float32(1)
    )
    model = LaresModel(config).eval()
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["n_items"], saved["d_model"], saved["tau"]) == (30, 16, 1.0)
    assert LaresModel.from_pretrained(tmp_path).config == expected.config
    histories = [[1, 2, 3], [4]]
    assert model.recommend(
        histories, k=whole(3), num_steps=whole(2), seed=whole(7)
    ) == expected.recommend(histories, k=3, num_steps=2, seed=7)
    assert model.recommend_rows(
        histories, whole(3), sequence_ids=[whole(1), whole(2)]
    ) == expected.recommend_rows(histories, 3, sequence_ids=[1, 2])
    sequence, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    seed = whole(7) if whole is not torch.tensor else 7
    assert torch.equal(
        model.scores(sequence, lengths, whole(2), seed), expected.scores(sequence, lengths, 2, 7)
    )
    if whole is not int:
        with pytest.raises(ConfigError, match="k is"):
            model.recommend(histories, k=np.float64(3))


@pytest.mark.parametrize("whole", WHOLE)
def test_evaluation(whole, interactions: Path) -> None:
    dataset = load_dataset(interactions, core=whole(1))
    torch.manual_seed(0)
    model = LaresModel(LaresConfig(dataset.vocabulary.n_items, d_model=16, d_ff=16))
    ks = [whole(5), whole(10)]
    found = evaluate(
        model, dataset.test, depths=[whole(2)], ks=ks, batch_size=whole(50), seed=whole(3)
    )
    assert found == evaluate(model, dataset.test, depths=[2], ks=[5, 10], batch_size=50, seed=3)
    assert json.loads(json.dumps(found)) == {"2": found[2]}
    assert evaluate_popularity(dataset, dataset.test, ks) == evaluate_popularity(
        dataset, dataset.test, [5, 10]
    )
    assert list(metrics_from_ranks(torch.tensor([3]), [whole(5)])) == ["recall@5", "ndcg@5"]
    first = depth_ranks(model, dataset.test, [1], states="drawn", first_id=whole(9))[1]
    assert torch.equal(first, depth_ranks(model, dataset.test, [1], states="drawn", first_id=9)[1])


def test_runs() -> None:
    config = TrainConfig.from_dict(
        {
            "model": {"d_model": np.int64(16), "tau": np.float32(0.5), "n_heads": torch.tensor(2)},
            "objective": {"alpha": np.float32(0.5)},
            "trainer": {"seed": np.uint64(2**64 - 1), "test_depths": np.array([1, 2]).tolist()},
        }
    )
    text = yaml.safe_dump(config.to_dict())
    assert TrainConfig.from_dict(yaml.safe_load(text)).to_dict() == config.to_dict()
    assert config.to_dict()["model"]["tau"] == 0.5
    rpt = PosttrainConfig.from_dict({"objective": {"rollouts": np.int64(8), "beta": np.float64(1)}})
    assert yaml.safe_load(yaml.safe_dump(rpt.to_dict()))["objective"]["rollouts"] == 8


@pytest.mark.parametrize("precision", ["16-true", "16"])
def test_precisions_that_cannot_train(precision: str) -> None:
    with pytest.raises(ConfigError, match="trainer.precision is '16"):
        TrainerOptions(precision=precision)
