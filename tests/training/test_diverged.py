"""Training that comes to numbers that are not finite: one line says so, and what to try."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lares.errors import LaresError
from lares.model.config import LaresConfig
from lares.objectives.spt.prefixes import SptObjective
from lares.training.config import PosttrainConfig, RunConfig
from lares.training.diverged import remedies
from lares.training.rpt import posttrain
from lares.training.spt import train
from lares.training.trainer import Trainer
from tests.training.helpers import small_config, small_posttrain_config

INFINITE = float("inf")


def spoil(monkeypatch: pytest.MonkeyPatch, what: str, at: int) -> None:
    """Make something infinite in step ``at``, as a diverging run has it."""
    step, forward = Trainer._step, SptObjective.forward

    def spoils(self, indices):
        losses = step(self, indices)
        if self.progress.total_steps + 1 == at:
            weight = self.model.items
            if what == "weights":
                weight.data[3, 1] = float("nan")
            else:
                self._optimizer.optimizer.state[weight]["exp_avg_sq"][3, 1] = INFINITE
        return losses

    def infinite(self, *arguments):
        losses = forward(self, *arguments)
        infinite.calls += 1
        return losses._replace(total=losses.total * INFINITE) if infinite.calls == at else losses

    infinite.calls = 0
    if what == "loss":
        monkeypatch.setattr(SptObjective, "forward", infinite)
    else:
        monkeypatch.setattr(Trainer, "_step", spoils)


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("loss", "the loss of step 2 is not finite (total inf"),
        ("moments", "after step {end} tensor 'adam.exp_avg_sq.encoder.item_embedding.weight'"),
        ("weights", "is not finite (total nan"),
    ],
)
def test_what_is_not_finite_and_what_to_try(
    what: str, said: str, saved: bool, interactions: Path, tmp_path: Path, monkeypatch
) -> None:
    config = small_config(interactions, trainer={"checkpoint_every_steps": int(saved)})
    spoil(monkeypatch, what, 2)
    with pytest.raises(LaresError) as caught:
        train(config, tmp_path / "run", progress=False)
    error = str(caught.value)
    state = tmp_path / "run" / "checkpoints" / "last.safetensors"
    if what == "weights" and saved:
        said = "after step 2 tensor 'model.encoder.item_embedding.weight' holds NaN"
    end = 2 if saved else 5
    assert said.format(end=end) in error
    assert ("the state saved before is kept in " + str(state) in error) == saved == state.is_file()
    assert ("; nothing was saved. " in error) == (not saved)
    assert "another --out, with --model.eps 1e-5 (dropout leaves one token in 65,536" in error
    assert error.endswith("or a lower --optimizer.lr (now 0.01)")
    assert "\n" not in error


@pytest.mark.parametrize("step", [4, 5])
def test_weights_of_the_last_step(
    step: int, interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss has not seen them: validation does."""
    spoil(monkeypatch, "weights", step)
    with pytest.raises(LaresError, match=r"Begin anew, in another --out, with --model\.eps 1e-5"):
        train(small_config(interactions), tmp_path / "run", progress=False)


def model(**options: float) -> LaresConfig:
    return LaresConfig(n_items=9, **{"d_model": 8, **options})


def test_remedies_fit_the_run() -> None:
    def of(config: RunConfig, **options: float) -> str:
        return " or ".join(remedies(config, model(**options)))

    usual, others = (
        small_config(Path("x")),
        "a lower --model.dropout (now 0.5) or a lower --optimizer.lr (now 0.01)",
    )
    assert of(usual) == (
        "--model.eps 1e-5 (dropout leaves one token in 256 all zeros, as model.d_model is 8, and with "
        f"model.eps 1e-12 LayerNorm makes far too much of its gradient) or {others}"
    )
    assert of(usual, eps=1e-5) == of(usual, d_model=64) == others
    assert of(usual, dropout=0.0) == "a lower --optimizer.lr (now 0.01)"
    half = small_config(Path("x"), trainer={"precision": "16-mixed"})
    assert of(half, eps=1e-5) == f"--trainer.precision 32-true or {others}"
    after: PosttrainConfig = small_posttrain_config(Path("x"), Path("y"))
    assert of(after).startswith("--start.dropout 0 (dropout leaves one token in 256 all zeros")
    assert of(after, eps=1e-5).startswith("a lower --start.dropout (now 0.5) or ")


def test_post_training_says_so_too(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_config(interactions, trainer={"max_epochs": 1}), tmp_path / "spt", progress=False)
    spoil(monkeypatch, "weights", 1)
    config = small_posttrain_config(interactions, tmp_path / "spt")
    with pytest.raises(LaresError, match=r"with a lower --start\.dropout \(now 0\.1\) or a"):
        posttrain(config, tmp_path / "rpt", progress=False)


@pytest.mark.parametrize("eps", [1e-12, 1e-5])
def test_a_token_of_zeros(eps: float) -> None:
    """What the advice rests on: how much LayerNorm makes of the gradient of a row of zeros."""
    row = torch.zeros(8, requires_grad=True)
    out = torch.nn.functional.layer_norm(row, (8,), eps=eps)
    (gradient,) = torch.autograd.grad(out[0], row)
    assert float(gradient.abs().max()) == pytest.approx((1 - 1 / 8) * eps**-0.5, rel=1e-3)
