"""Choices that had another name: files and callers may have it, what is written has the new one."""

from __future__ import annotations

import pytest

from lares import LaresConfig
from lares.errors import ConfigError
from lares.training.config import TrainConfig
from lares_kernels.spec.config import ACTIVATIONS, ADAPTERS, NORMS

OF_THE_OP = {"activation": ACTIVATIONS, "adapter": ADAPTERS, "norm": NORMS}
FORMER = pytest.mark.parametrize(
    ("option", "former", "now"), [("scores", "cos", "cosine"), ("core", "fmlp", "filter")]
)


@FORMER
def test_a_former_name_is_taken(option: str, former: str, now: str) -> None:
    wanted = LaresConfig(n_items=9, **{option: now})
    for config in (
        LaresConfig(n_items=9, **{option: former}),
        LaresConfig.from_dict({"n_items": 9, option: former}),
    ):
        assert config == wanted
        assert hash(config) == hash(wanted)
        assert config.to_dict()[option] == now


@FORMER
def test_runs_with_either_name_are_one(option: str, former: str, now: str) -> None:
    """So that a run that began under the old name goes on."""
    options = [{"data": {}, "model": {option: name}} for name in (former, now)]
    before, after = (TrainConfig.from_dict(each).to_dict() for each in options)
    assert before == after
    assert before["model"][option] == now


@FORMER
def test_mistakes_are_told_by_the_new_name(option: str, former: str, now: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} is 'none'") as caught:
        LaresConfig(n_items=9, **{option: "none"})
    choices = str(caught.value).partition("one of ")[2].split(", ")
    assert now in choices
    assert former not in choices


@pytest.mark.parametrize(
    ("option", "choice"),
    [(option, each) for option, choices in OF_THE_OP.items() for each in choices if each != "none"],
)
def test_a_model_has_every_choice_of_the_op(option: str, choice: str) -> None:
    """But the adapter that is no recurrence: saved models may have any other."""
    config = LaresConfig(n_items=9, **{option: choice})
    assert config.to_dict()[option] == choice
    assert getattr(config.core_config(), option) == choice
