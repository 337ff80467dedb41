"""``lares.integrations.sasrec``: same scores and gradients, recurrence, errors that name attributes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lares.errors import ConfigError
from lares.integrations import sasrec
from lares_kernels import UnsupportedModuleError
from tests.model.sasrec_pytorch import KINDS, SequenceModel

SEQS = np.array([[0, 0, 0, 0, 7], [1, 2, 3, 4, 5], [0, 0, 9, 9, 30]])
POSITIVE = np.array([[0, 0, 0, 0, 8], [2, 3, 4, 5, 6], [0, 0, 9, 30, 1]])


def made(kind: str, rate: float = 0.0, **options: int) -> SequenceModel:
    torch.manual_seed(3)
    return SequenceModel(kind, rate=rate, **options)


def loss_and_gradients(model: SequenceModel) -> tuple[Tensor, dict[str, Tensor]]:
    positive, negative = model(np.arange(3), SEQS, POSITIVE, POSITIVE[::-1].copy())
    real = torch.from_numpy(POSITIVE != 0)
    loss = nn.functional.softplus(-positive[real]).mean()
    loss = loss + nn.functional.softplus(negative[real]).mean()
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_same_scores_and_gradients(kind: str) -> None:
    theirs = made(kind)
    ours = sasrec.accelerate(copy.deepcopy(theirs))
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    padding = {"query-zeros": "left-zeros"}.get(kind, "right")
    config = ours.lares_layers.config
    assert (config.padding, config.norm) == (padding, kind.partition("-")[0])
    items = np.arange(1, 31)
    for row in SEQS:
        expected = theirs.predict(np.arange(1), row[None], items)
        assert torch.allclose(ours.predict(np.arange(1), row[None], items), expected, atol=1e-5)
    wanted, grads = loss_and_gradients(theirs)
    found, mine = loss_and_gradients(ours)
    assert torch.allclose(found, wanted, rtol=1e-5)
    scale = 1e-3 * max(float(g.norm()) for g in grads.values())
    for name, gradient in grads.items():
        error = float((mine[name] - gradient).norm())
        assert error < 1e-4 * max(float(gradient.norm()), scale), name


def test_dropout_is_at_the_same_places() -> None:
    model = sasrec.accelerate(made("query", 0.25), seed=4)
    config = model.lares_layers.config
    assert (config.dropout, config.attn_dropout, config.inner_dropout) == (0.25,) * 3
    assert config.dropout_of == "feed-forward"
    torch.manual_seed(0)
    first, second = model.log2feats(SEQS), model.log2feats(SEQS)
    assert not torch.allclose(first, second)
    assert model.lares_layers.seeds.next == 6


def test_a_swapped_model_is_copied_and_pickled_and_swapped_once() -> None:
    model = sasrec.accelerate(made("post")).eval()
    assert sasrec.accelerate(model) is model
    twin, other = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        before = model.log2feats(SEQS)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model.log2feats(SEQS), before)
        assert not torch.equal(twin.log2feats(SEQS), before)
        assert torch.equal(other.log2feats(SEQS), before)


@pytest.mark.parametrize("kind", ["query-zeros", "pre"])
def test_recurrence(kind: str) -> None:
    model = sasrec.make_recurrent(made(kind), n_pre=1, mean_depth=3)
    assert "lares_core_norm.weight" in model.state_dict()
    _, grads = loss_and_gradients(model)
    assert all(gradient is not None for gradient in grads.values())
    model.eval()
    once = model.log2feats(SEQS)
    assert torch.equal(once, model.log2feats(SEQS))
    model.lares_layers.recurrence.num_steps = 1
    assert not torch.allclose(once, model.log2feats(SEQS))
    with pytest.raises(ConfigError, match=r"n_pre is 2; the model has 2 layers"):
        sasrec.make_recurrent(made(kind), n_pre=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention_layers.1", nn.Linear(16, 16)),
        ("forward_layers.0.conv1", nn.Conv1d(16, 16, 3)),
        ("forward_layers.1.relu", nn.Tanh()),
        ("forward_layers.1.gate", nn.Linear(1, 1)),
        ("forward_layernorms.0", nn.BatchNorm1d(16)),
        ("forward_layers.1.dropout2", nn.Dropout(0.5)),
        ("last_layernorm", nn.Identity()),
        ("attention_layers.0.bias_v", nn.Parameter(torch.zeros(1, 1, 16))),
    ],
)
def test_errors_name_the_attribute(name: str, value: object) -> None:
    model = made("query")
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, value)
    with pytest.raises(UnsupportedModuleError, match=name.replace(".", r"\.")):
        sasrec.accelerate(model)


def test_a_missing_attribute_and_another_program() -> None:
    model = made("query")
    del model.pos_emb
    with pytest.raises(UnsupportedModuleError, match="pos_emb is 'missing'"):
        sasrec.accelerate(model)

    class Reversed(SequenceModel):
        def log2feats(self, log_seqs: np.ndarray) -> Tensor:
            return super().log2feats(log_seqs) * 2

    with pytest.raises(UnsupportedModuleError, match=r"log2feats computes something else"):
        sasrec.accelerate(Reversed("query"))


def test_a_seed_given_to_a_model_swapped_before_is_taken() -> None:
    model = sasrec.accelerate(made(KINDS[0], rate=0.2))
    assert sasrec.accelerate(model, seed=9).lares_layers.seeds.next == 9
    assert sasrec.make_recurrent(model, seed=3).lares_layers.seeds.next == 3
    assert sasrec.accelerate(model).lares_layers.seeds.next == 3
