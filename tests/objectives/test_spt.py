"""The SPT objective beyond its goldens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lares import LaresConfig, LaresModel
from lares.errors import ConfigError
from lares.model import PackedHistories
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.losses import SptDepths, draw_depths
from lares.objectives.spt.prefixes import SptBatch, SptObjective

DEPTHS = SptDepths(2, 3, 3, 1)


def symmetric_nce(x: torch.Tensor, y: torch.Tensor, tau: float) -> torch.Tensor:
    places = torch.arange(len(x))
    both = [torch.nn.functional.cross_entropy(a @ b.mT / tau, places) for a, b in ((x, y), (y, x))]
    return sum(both) / 2


def make_model(**options) -> LaresModel:
    torch.manual_seed(0)
    model = LaresModel(LaresConfig(n_items=20, max_length=6, d_model=16, d_ff=16, **options))
    return model.double()


def make_batch() -> SptBatch:
    generator = torch.Generator().manual_seed(3)
    size = 5
    draw = lambda: torch.randint(1, 20, (size, 4), generator=generator)  # noqa: E731
    config = LaresConfig(n_items=20, max_length=6, d_model=16, d_ff=16)
    items, lengths = draw(), torch.tensor([4, 1, 2, 3, 4])
    targets = draw()[:, 0]
    partners, partner_lengths = draw()[:, :3], torch.tensor([3, 3, 1, 2, 3])
    return SptBatch(
        histories=PackedHistories.from_padded(config, masked(items, lengths), lengths),
        targets=targets,
        partners=PackedHistories.from_padded(
            config, masked(partners, partner_lengths), partner_lengths
        ),
        global_size=size,
    )


def masked(items: Tensor, lengths: Tensor) -> Tensor:
    """With zeros at padding."""
    return items * (torch.arange(items.shape[1]) < lengths[:, None])


def test_one_packed_call_equals_three_encodings() -> None:
    """Recommendation, alignment and augmented encodings, each on its own, with dropout on."""
    model, batch = make_model(), make_batch()
    objective = SptObjective(model, SptConfig(0.3, 0.7))
    losses = objective(batch, DEPTHS, seed=11)
    size = len(batch.targets)

    def encode(histories, depth, role):
        ids = torch.arange(size) + role * size
        return model.encoder(
            histories.padded,
            histories.lengths,
            depth,
            seed=11,
            sequence_ids=ids,
            return_trajectory=True,
        )

    rec = encode(batch.histories, 2, 0)
    align = encode(batch.histories, 3, 1)
    aug = encode(batch.partners, 3, 2)
    expected_rec = torch.nn.functional.cross_entropy(model.score_states(rec.last), batch.targets)
    torch.testing.assert_close(losses.recommendation, expected_rec)
    tau = model.config.tau
    trajectory = symmetric_nce(align.last, aug.last, tau)
    step = symmetric_nce(align.last, align.trajectory[:, 1], tau)
    torch.testing.assert_close(losses.trajectory, trajectory)
    torch.testing.assert_close(losses.step, step)
    torch.testing.assert_close(losses.total, expected_rec + 0.3 * trajectory + 0.7 * step)


def test_weights_of_zero_leave_their_losses_out() -> None:
    batch = make_batch()
    model = make_model()
    full = SptObjective(model, SptConfig(0.3, 0.7))(batch, DEPTHS, seed=1)
    no_step = SptObjective(model, SptConfig(0.3, 0.0))(batch, DEPTHS, seed=1)
    assert no_step.step == 0
    torch.testing.assert_close(no_step.trajectory, full.trajectory)
    batch.partners = None
    alone = SptObjective(model, SptConfig(0.0, 0.0))(batch, DEPTHS, seed=1)
    torch.testing.assert_close(alone.total, full.recommendation)
    with pytest.raises(ValueError, match="partners"):
        SptObjective(model, SptConfig())(batch, DEPTHS, seed=1)


def test_deep_supervision_is_the_loss_of_a_shorter_run() -> None:
    model = make_model(state_mode="zero").eval()
    spt, batch = SptConfig(0.0, 0.0, deep_supervision=0.5), make_batch()
    losses = SptObjective(model, spt)(batch, SptDepths(4, 1, 1, 0, supervised_step=1), seed=1)
    shorter = SptObjective(model, spt)(batch, SptDepths(2, 1, 1, 0, supervised_step=0), seed=1)
    torch.testing.assert_close(losses.earlier, shorter.recommendation)
    torch.testing.assert_close(losses.total, losses.recommendation + 0.5 * losses.earlier)
    one = SptObjective(model, spt)(batch, SptDepths(1, 1, 1, 0), seed=1)
    assert one.earlier == 0  # there is none before the only step
    torch.testing.assert_close(one.total, one.recommendation)


def test_one_encoding_is_two_that_agree() -> None:
    """Without dropout, from zero states and to one depth both encodings of a sample are the same."""
    model, batch = make_model(state_mode="zero").eval(), make_batch()
    depths = SptDepths(3, 3, 3, 1)
    found, losses = [], []
    for one_encoding in (False, True):
        model.zero_grad()
        spt = SptConfig(0.3, 0.7, one_encoding=one_encoding)
        losses.append(SptObjective(model, spt)(batch, depths, seed=1))
        losses[-1].total.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(found[1], found[0])


def test_one_encoding_shares_dropout() -> None:
    model, batch, depths = make_model(dropout=0.5), make_batch(), SptDepths(3, 3, 3, 1)
    both, rec = (
        SptObjective(model, SptConfig(*weights, one_encoding=True))(batch, depths, seed=1)
        for weights in ((0.3, 0.7), (0.0, 0.0))
    )
    torch.testing.assert_close(both.recommendation, rec.recommendation)
    torch.testing.assert_close(
        both.total, rec.recommendation + 0.3 * both.trajectory + 0.7 * both.step
    )


def test_trajectory_alignment_without_recurrence() -> None:
    model = make_model(n_core_layers=0)
    losses = SptObjective(model, SptConfig(0.3, 0.0))(make_batch(), SptDepths(0, 0, 0, 0), seed=1)
    assert losses.trajectory > 0
    with pytest.raises(ConfigError, match="set objective.gamma=0"):
        SptObjective(model, SptConfig(0.3, 0.1))
    with pytest.raises(ConfigError, match="set objective.deep_supervision=0"):
        SptObjective(model, SptConfig(0.3, 0.0, deep_supervision=1.0))


def test_depths_drawn() -> None:
    config = LaresConfig(n_items=20)
    generator = np.random.default_rng(0)
    for _ in range(200):
        same = draw_depths(config, SptConfig(), generator)
        assert same.alignment == same.augmented
        assert 0 <= same.selected_step < same.alignment
        assert 0 <= same.supervised_step < max(same.recommendation - 1, 1)
        once = draw_depths(config, SptConfig(one_encoding=True), generator)
        assert once.recommendation == once.alignment == once.augmented
        assert 0 <= once.selected_step < once.alignment
    free = [draw_depths(config, SptConfig(same_step=False), generator) for _ in range(200)]
    assert any(depths.alignment != depths.augmented for depths in free)


def test_bad_weights() -> None:
    with pytest.raises(ConfigError, match=r"alpha is -0\.1"):
        SptConfig(alpha=-0.1)
    with pytest.raises(ConfigError, match="gamma is nan"):
        SptConfig(gamma=float("nan"))
    with pytest.raises(ConfigError, match="align_warmup is -1"):
        SptConfig(align_warmup=-1)
