"""Training on every prefix of a history at once is training on every prefix."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lares import LaresConfig, LaresModel
from lares.cli.train import parse
from lares.data import load_dataset
from lares.errors import ConfigError
from lares.objectives.rpt.config import RptConfig
from lares.objectives.rpt.histories import WindowRptObjective
from lares.objectives.rpt.prefixes import RptObjective
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.losses import SptDepths, symmetric_nce
from lares.training.config import SamplingOptions
from lares.training.rpt import posttrain
from lares.training.rpt_phases import RptPhase, WindowRptPhase
from lares.training.spt import train
from lares.training.spt_phases import SptPhase, WindowSptPhase
from lares.training.steps import Place, batch_bounds
from tests.training.helpers import small_config, small_posttrain_config

PLACE = Place(0, 1, torch.device("cpu"))
WHOLE = SamplingOptions(samples="users", aligned=0)
SHAPE = {"d_model": 16, "d_ff": 16, "n_pre_layers": 1, "n_core_layers": 1}
STILL = {"dropout": 0.0, "attn_dropout": 0.0, "state_mode": "zero", "max_length": 50}


def make_model(n_items: int, **options) -> LaresModel:
    torch.manual_seed(4)
    return LaresModel(LaresConfig(n_items=n_items, **{**SHAPE, **STILL, **options})).double()


def gradients(loss: Tensor, model: LaresModel) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("options", "spt"),
    [
        ({}, SptConfig()),
        ({"scores": "cosine", "tau": 0.5}, SptConfig(alpha=0.3, mask_same_target=True)),
        ({"n_core_layers": 0}, SptConfig(alpha=0.0, gamma=0.0)),
        ({}, SptConfig(alpha=0.0, gamma=0.0)),
        ({}, SptConfig(deep_supervision=0.7)),
        ({}, SptConfig(alpha=0.0, gamma=0.0, deep_supervision=0.7)),
        ({}, SptConfig(deep_supervision=0.7, one_encoding=True)),
    ],
    ids=[
        "spt",
        "cosine-masked",
        "sasrec",
        "cross-entropy",
        "spt-deep",
        "cross-entropy-deep",
        "once",
    ],
)
def test_spt_on_windows_equals_spt_on_prefixes(
    interactions: Path, options: dict, spt: SptConfig
) -> None:
    dataset = load_dataset(interactions)
    model = make_model(dataset.vocabulary.n_items, **options)
    whole = WindowSptPhase(model, spt, WHOLE, dataset.train, 0, PLACE)
    chosen = np.array([7, 0, 12, 5, 3])
    batch, *_ = whole.make(chosen, 0)
    samples = whole._windows.part(chosen).samples
    each = SptPhase(model, spt, dataset.train, 0, PLACE)
    prefixes, *_ = each.make(samples, 0)
    assert torch.equal(batch.targets, prefixes.targets)
    prefixes.partners = batch.partners
    for step in (0, 2) if model.config.is_recurrent else (0,):
        depths = SptDepths(2, 3, 3, step) if model.config.is_recurrent else SptDepths(0, 0, 0, 0)
        if step == 2:  # where the step that is supervised is not the one that is aligned
            depths = depths._replace(recommendation=4, supervised_step=1)
        if spt.one_encoding:
            depths = depths._replace(alignment=depths.recommendation)
            depths = depths._replace(selected_step=min(step, depths.alignment - 1))
        found = whole.objective(batch, depths, 0)
        expected = each.objective(prefixes, depths, 0)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.item() == pytest.approx(theirs.item(), rel=1e-12)
        assert (found.total > found.recommendation) == (spt.aligns or spt.deep_supervision > 0)
        for mine, theirs in zip(
            gradients(found.total, model), gradients(expected.total, model), strict=True
        ):
            assert (mine - theirs).norm() <= 1e-11 * theirs.norm() + 1e-13


@pytest.mark.parametrize("whole", [True, False], ids=["users", "prefixes"])
def test_alignment_warms_up(interactions: Path, whole: bool) -> None:
    dataset = load_dataset(interactions)
    model = make_model(dataset.vocabulary.n_items)
    spt = SptConfig(alpha=0.3, gamma=0.0, align_warmup=3)
    phase: SptPhase | WindowSptPhase
    if whole:
        phase = WindowSptPhase(model, spt, WHOLE, dataset.train, 0, PLACE)
    else:
        phase = SptPhase(model, spt, dataset.train, 0, PLACE)
    for step, share in enumerate((0.25, 0.5, 0.75, 1.0, 1.0)):
        losses = phase.objective(*phase.make(np.arange(8), step))
        expected = losses.recommendation + share * 0.3 * losses.trajectory
        assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_rpt_on_windows_equals_rpt_on_prefixes(interactions: Path) -> None:
    dataset = load_dataset(interactions)
    model = make_model(dataset.vocabulary.n_items)
    reference = make_model(dataset.vocabulary.n_items)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    rpt, depths = RptConfig(rollouts=3, k=3, ndcg_reward=0.5), [2, 4, 1]
    kept = np.flatnonzero(np.arange(len(dataset.train)) % 3 != 1)
    objective = WindowRptObjective(model, rpt, 1, reference)
    whole = WindowRptPhase(objective, WHOLE, dataset.train, kept, 0, PLACE)
    chosen = np.array([4, 1, 9])
    batch, *_ = whole.make(chosen, 0)
    samples = whole._windows.part(chosen).samples
    assert np.isin(samples, kept).all()
    assert whole.sizes.sum() == len(kept)
    split = dataclasses.replace(
        dataset.train, starts=dataset.train.starts[samples], ends=dataset.train.ends[samples]
    )
    plain = RptObjective(model, rpt, 1, reference)
    prefixes, *_ = RptPhase(plain, split, 0, PLACE).make(np.arange(len(samples)), 0)
    found, rollouts = objective(batch, depths, 0, 1)
    expected, others = plain(prefixes, depths, 0, 1)
    assert torch.equal(rollouts.rewards, others.rewards)
    for name, mine, theirs in zip(found._fields, found, expected, strict=True):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-11), name
    for mine, theirs in zip(
        gradients(found.total, model), gradients(expected.total, model), strict=True
    ):
        assert (mine - theirs).norm() <= 1e-10 * theirs.norm() + 1e-13


def test_same_targets_are_no_negatives() -> None:
    x, y = torch.randn(2, 4, 8, dtype=torch.float64)
    (masked,) = symmetric_nce(x, [y], 1.0, False, torch.tensor([5, 6, 5, 7]))
    scores = x @ y.T
    scores[0, 2] = scores[2, 0] = -1e9
    target = torch.arange(4)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
    assert masked.item() == pytest.approx(expected.item(), rel=1e-12)


def test_batches_fill_up_with_targets() -> None:
    assert batch_bounds(np.ones(20, dtype=int), 8).tolist() == [0, 8, 16, 20]
    assert batch_bounds(np.ones(17, dtype=int), 16).tolist() == [0, 17]  # a tiny last batch joins
    assert batch_bounds(np.array([5, 5, 1, 9, 30, 2]), 8).tolist() == [0, 2, 4, 5, 6]
    assert batch_bounds(np.array([1]), 8).tolist() == [0, 1]


def test_learns_in_fewer_encodings_and_resumes(interactions: Path, tmp_path: Path) -> None:
    sections = {
        "sampling": {"samples": "users", "overlap": 3, "aligned": 40},
        "model": {"dropout": 0.1, "attn_dropout": 0.1},
        "objective": {"mask_same_target": True},
    }
    config = small_config(interactions, trainer={"max_epochs": 8}, **sections)
    result = train(config, tmp_path / "run", progress=False)
    untrained = small_config(interactions, trainer={"max_epochs": 1}, **sections)
    first = train(untrained, tmp_path / "first", progress=False)
    assert result.valid_best > 1.2 * first.valid_best
    config = small_posttrain_config(
        interactions,
        tmp_path / "run",
        sampling={"samples": "users"},
        objective={"k": 2, "pre_block": "redrawn"},
    )
    after = posttrain(config, tmp_path / "rpt", progress=False)
    assert after.epochs == 2


def test_on_the_command_line() -> None:
    published = ["data.csv", "--recipe", "published"]
    config, _ = parse([*published, "--samples", "users", "--sampling.overlap", "5"])
    assert config.sampling == SamplingOptions("users", 5)
    assert parse(published)[0].sampling.samples == "prefixes"
    assert parse(["data.csv"])[0].sampling.samples == "auto"
    with pytest.raises(ConfigError, match=r"sampling\.samples is 'user'"):
        parse(["data.csv", "--samples", "user"])
