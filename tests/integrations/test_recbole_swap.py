"""``lares.integrations.recbole``, in an environment that has RecBole (docs/guide/swap.md says how)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("recbole", reason="RecBole is not installed")

from lares.errors import ConfigError
from lares.integrations import recbole as swap
from lares_kernels import UnsupportedModuleError
from tests.integrations.recbole_options import ModelOptions, OneNumber

ITEMS, LENGTH = 40, 10


def options(**changes: Any) -> ModelOptions:
    rates = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    small = {"hidden_size": 16, "inner_size": 24, "initializer_range": 0.3}
    length = {"MAX_ITEM_LIST_LENGTH": LENGTH}
    return ModelOptions({**swap.DEFAULTS, **length, **rates, **small, **changes})


def made(**changes: Any) -> Any:
    torch.manual_seed(1)
    return swap.SASRec(options(**changes), OneNumber(ITEMS))


def interaction() -> dict[str, Tensor]:
    rng = np.random.default_rng(2)
    lengths = np.array([1, 10, 4, 7])
    ids = rng.integers(1, ITEMS, (4, LENGTH)) * (np.arange(LENGTH) < lengths[:, None])
    names = {"item_id_list": ids, "item_length": lengths}
    for name in ("item_id", "neg_item_id"):
        names[name] = rng.integers(1, ITEMS, 4)
    return {name: torch.as_tensor(value) for name, value in names.items()}


@pytest.mark.parametrize("loss", ["CE", "BPR"])
@pytest.mark.parametrize("activation", ["gelu", "relu", "swish"])
def test_same_scores_and_gradients(loss: str, activation: str) -> None:
    theirs = made(loss_type=loss, hidden_act=activation)
    ours = swap.accelerate(copy.deepcopy(theirs))
    given = interaction()
    assert torch.allclose(
        ours.full_sort_predict(given), theirs.full_sort_predict(given), rtol=1e-4, atol=1e-4
    )
    found = []
    for model in (theirs, ours):
        value = model.calculate_loss(given)
        value.backward()
        found.append((value.detach(), [p.grad for p in model.parameters()]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5)
    scale = 1e-3 * max(float(g.norm()) for g in found[0][1])
    for wanted, mine in zip(found[0][1], found[1][1], strict=True):
        assert float((mine - wanted).norm()) < 1e-4 * max(float(wanted.norm()), scale)


def test_recurrence() -> None:
    model = swap.make_recurrent(made(), n_pre=1, mean_depth=3).eval()
    given = interaction()
    deep = model.full_sort_predict(given)
    model.lares_layers.recurrence.num_steps = 1
    assert not torch.allclose(deep, model.full_sort_predict(given))
    model.train()
    model.calculate_loss(given).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "wrong", [{"n_pre": 2}, {"mean_depth": 0}, {"depth_sampler": "x"}], ids=str
)
def test_a_recurrence_that_cannot_be_changes_nothing(wrong: dict[str, Any]) -> None:
    model = made()
    before = {*model.__dict__}, [*model.state_dict()]
    with pytest.raises(ConfigError):
        swap.make_recurrent(model, **wrong)
    assert ({*model.__dict__}, [*model.state_dict()]) == before


def test_parts_keep_their_modes_and_those_in_evaluation_do_not_drop() -> None:
    rates = {"hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5}
    given, model = interaction(), made(**rates)
    model.dropout.eval()
    model.trm_encoder.layer[0].eval()
    before = [part.training for part in model.modules()]
    swap.accelerate(model)
    assert [part.training for part in model.modules()] == before
    assert not torch.equal(model.full_sort_predict(given), model.full_sort_predict(given))
    assert [part.training for part in model.modules()] == before
    model.trm_encoder.eval()
    assert model.training
    assert torch.equal(model.full_sort_predict(given), model.eval().full_sort_predict(given))


@pytest.mark.parametrize(
    "name",
    ["trm_encoder", "trm_encoder.layer.1", "trm_encoder.layer.0.feed_forward.dense_1"]
    + ["item_embedding", "LayerNorm", "dropout", "loss_fct"],
)
def test_hooks_that_come_later_are_refused(name: str) -> None:
    """But for those by which RecBole counts operations, in ``run_recbole``."""
    model, given = swap.accelerate(made()), interaction()
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModuleError, match=rf"{name}\._forward_hooks is 1"):
        model.calculate_loss(given)
    handle.remove()
    model.calculate_loss(given)

    def counts(module: nn.Module, inputs: Any, output: Any) -> None:
        pass

    for where in ("thop.vision.basic_hooks", "recbole.utils.utils"):
        counts.__module__ = where
        module.register_forward_hook(counts)
    model.full_sort_predict(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("multi_head_attention.key", nn.Identity()),
        ("feed_forward.intermediate_act_fn", torch.tanh),
        ("feed_forward.dropout.p", 0.1),
        ("feed_forward.LayerNorm", nn.Identity()),
        ("multi_head_attention.LayerNorm.eps", 0.1),
    ],
)
def test_errors_name_the_attribute(name: str, value: object) -> None:
    model = made()
    layer = model.trm_encoder.layer[1]
    parent, _, attribute = name.rpartition(".")
    setattr(layer.get_submodule(parent), attribute, value)
    named = name.replace("multi_head_attention.LayerNorm", "feed_forward.LayerNorm")
    with pytest.raises(UnsupportedModuleError, match=named.replace(".", r"\.")):
        swap.accelerate(model)


def test_a_subclass_with_its_own_forward_is_refused() -> None:
    class Other(swap.SASRec):
        def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
            return super().forward(item_seq, item_seq_len) * 2

    with pytest.raises(UnsupportedModuleError, match="forward is 'that of Other'"):
        swap.accelerate(Other(options(), OneNumber(ITEMS)))


@pytest.mark.parametrize("name", ["FusedSASRec", "LARES"])
@pytest.mark.parametrize(
    ("given", "loss", "samples"),
    [
        ({}, "CE", "none"),
        ({"loss_type": None}, "CE", "none"),
        ({"loss_type": "CE"}, "CE", "none"),
        ({"loss_type": "CE", "train_neg_sample_args": None}, "CE", "none"),
        ({"loss_type": "BPR"}, "BPR", 1),
    ],
)
def test_the_loss_that_no_option_names(
    name: str, given: dict[str, Any], loss: str, samples: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole.config import Config

    monkeypatch.setattr("sys.argv", ["run"])
    config = Config(model=name, dataset="ml-100k", config_dict=given)
    assert config["loss_type"] == loss
    assert config["train_neg_sample_args"]["sample_num"] == samples
    assert config["MODEL_INPUT_TYPE"].name == {"CE": "POINTWISE", "BPR": "PAIRWISE"}[loss]


def test_negative_samples_beside_cross_entropy_stay_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from recbole.config import Config

    monkeypatch.setattr("sys.argv", ["run"])
    given = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    with pytest.raises(ValueError, match="should be None when the loss_type is CE"):
        Config(model="LARES", dataset="ml-100k", config_dict=given)


@pytest.mark.parametrize(
    ("name", "loss"),
    [("FusedSASRec", "loss_type: CE\ntrain_neg_sample_args: ~\n"), ("LARES", "")],
)
def test_run_recbole(name: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run: config file, training, checkpoint, full ranking."""
    from recbole.quick_start import load_data_and_model, run_recbole

    rng = np.random.default_rng(0)
    (tmp_path / "tiny").mkdir()
    with (tmp_path / "tiny" / "tiny.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user in range(30):
            start = rng.integers(0, 20)
            for t in range(8):
                file.write(f"u{user}\ti{(start + t) % 20}\t{t}\n")
    config = tmp_path / "options.yaml"
    config.write_text(
        f"epochs: 2\n{loss}hidden_size: 16\ninner_size: 16\n"
        "load_col: {inter: [user_id, item_id, timestamp]}\ntrain_batch_size: 64\n"
        "eval_args: {split: {LS: valid_and_test}, order: TO, mode: full}\nmetrics: [NDCG]\n"
        "topk: [5]\nvalid_metric: NDCG@5\nshow_progress: false\nMAX_ITEM_LIST_LENGTH: 6\n"
        f"data_path: {tmp_path}\ncheckpoint_dir: {tmp_path / 'saved'}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run"])
    # RecBole 1.2.1 reads its checkpoints back as pickles, which torch's present default refuses.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    result = run_recbole(model=name, dataset="tiny", config_file_list=[str(config)])
    assert 0.0 <= result["test_result"]["ndcg@5"] <= 1.0
    (saved,) = (tmp_path / "saved").iterdir()
    loaded = load_data_and_model(str(saved))[1]
    assert loaded.lares_layers.recurrence is None or name == "LARES"
