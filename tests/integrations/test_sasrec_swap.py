"""``lares.integrations.sasrec``: same scores and gradients, recurrence, errors that name attributes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lares.errors import ConfigError
from lares.integrations import sasrec, swapped
from lares_kernels import UnsupportedModuleError
from tests.integrations.sasrec_pytorch import KINDS, SequenceModel

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
    for wrong in (True, np.True_, 1.0, "1", None):
        with pytest.raises(ConfigError, match="n_pre is "):
            sasrec.make_recurrent(made(kind), n_pre=wrong)
        with pytest.raises(ConfigError, match="mean_depth is "):
            sasrec.make_recurrent(made(kind), mean_depth=wrong)
    recurrence = sasrec.make_recurrent(
        made(kind), n_pre=np.int64(1), mean_depth=torch.tensor(3)
    ).lares_layers.recurrence
    assert (type(recurrence.n_pre), recurrence.num_steps) == (int, 3)


BAD_RECURRENCES = [
    {"n_pre": 2},
    {"n_pre": -1},
    {"n_pre": None},
    {"mean_depth": 0},
    {"depth_sampler": "sometimes"},
]


@pytest.mark.parametrize("wrong", BAD_RECURRENCES, ids=str)
def test_a_recurrence_that_cannot_be_changes_nothing(wrong: dict) -> None:
    model = made("pre")
    before = {*model.__dict__}, [*model.state_dict()]
    with pytest.raises(ConfigError):
        sasrec.make_recurrent(model, **wrong)
    assert ({*model.__dict__}, [*model.state_dict()]) == before
    sasrec.accelerate(model, seed=4)
    with pytest.raises(ConfigError):
        sasrec.make_recurrent(model, **wrong, seed=9)
    assert (model.lares_layers.seeds.next, model.lares_layers.recurrence) == (4, None)
    assert [*model.state_dict()] == before[1]


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in model.named_modules()}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "name", ["emb_dropout", "attention_layers.0", "forward_layers", "item_emb"]
)
def test_every_part_keeps_its_mode(name: str, whole: bool) -> None:
    """Also where the swap is refused, and in a recurrence."""
    model = made("query").train(whole)
    model.get_submodule(name).train(not whole)
    before = modes(model)
    assert modes(sasrec.accelerate(copy.deepcopy(model))) == before

    class Reversed(SequenceModel):
        def log2feats(self, log_seqs: np.ndarray) -> Tensor:
            return super().log2feats(log_seqs) * 2

    model.__class__ = Reversed
    with pytest.raises(UnsupportedModuleError):
        sasrec.accelerate(model)
    assert modes(model) == before


def frozen(*names: str, **options: int) -> SequenceModel:
    model = sasrec.accelerate(made("pre", 0.5, **options))
    for name in names:
        model.get_submodule(name).eval()
    return model


def test_parts_in_evaluation_mode_do_not_drop() -> None:
    everything = frozen("emb_dropout", "attention_layers", "forward_layers")
    still = everything.log2feats(SEQS)
    assert everything.training
    assert torch.equal(still, everything.eval().log2feats(SEQS))
    first, last = (
        ["emb_dropout", f"attention_layers.{i}", f"forward_layers.{i}"] for i in range(2)
    )
    for names in (first, [*first, "attention_layers.1"], [*last]):
        model = frozen(*names)
        assert not torch.equal(model.log2feats(SEQS), model.log2feats(SEQS))
    # The first layer gives what it gives in evaluation: it is the second that differs.
    kept: list[Tensor] = []
    model = frozen(*first)
    refine = swapped.refine

    def watched(config, parameters, x, **options):
        out = refine(config, parameters, x, **options)
        kept.append(out.state)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swapped, "refine", watched)
        model.log2feats(SEQS)
        model.eval().log2feats(SEQS)
    once, again, whole = kept
    assert not torch.equal(again, whole)
    alone = sasrec.accelerate(made("pre", 0.5))
    for name in (
        "attention_layernorms",
        "attention_layers",
        "forward_layernorms",
        "forward_layers",
    ):
        setattr(alone, name, getattr(alone, name)[:1])
    one = sasrec.accelerate(unswapped(alone)).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swapped, "refine", watched)
        one.log2feats(SEQS)
    torch.testing.assert_close(kept[-1], once)


def unswapped(model: SequenceModel) -> SequenceModel:
    for name in ("lares_layers", "log2feats"):
        del model.__dict__[name]
    return model


def test_modes_that_the_op_cannot_follow_are_refused() -> None:
    model = frozen("attention_layers.0", "forward_layers.0")
    sasrec.make_recurrent(model, n_pre=1).log2feats(SEQS)
    both = sasrec.make_recurrent(frozen(), n_pre=0)
    for part in (both.attention_layers[1], both.forward_layers[1]):
        part.eval()
    with pytest.raises(UnsupportedModuleError, match="layers that reason"):
        both.log2feats(SEQS)
    both.eval().log2feats(SEQS)
    three = frozen("attention_layers.1", "forward_layers.1", layers=3)
    with pytest.raises(UnsupportedModuleError, match="layer 2's dropouts"):
        three.log2feats(SEQS)


@pytest.mark.parametrize(
    "name",
    [
        "attention_layers.1",
        "attention_layers.0.out_proj",
        "forward_layers.1",
        "forward_layers.0.relu",
    ]
    + ["attention_layernorms.1", "item_emb", "pos_emb"],
)
def test_hooks_that_come_later_are_refused(name: str) -> None:
    model, called = frozen(), []
    for other in ("emb_dropout", "last_layernorm"):
        model.get_submodule(other).register_forward_hook(lambda *_: called.append(1))
    model.log2feats(SEQS)
    assert called == [1, 1]
    handle = model.get_submodule(name).register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModuleError, match=rf"{name}\._forward_hooks is 1"):
        model.log2feats(SEQS)
    handle.remove()
    model.log2feats(SEQS)


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
