"""Choices by number: C's header is up to date, numbers are as they must be, and users' names go on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lares_kernels.binding import cpu_library
from lares_kernels.spec import catalogue_call as call
from lares_kernels.spec import choices, config
from lares_kernels.spec.choices import Activation, Adapter, Choice, Padding

sys.path.insert(0, str(Path(__file__).parents[3] / "csrc"))
import enums

EVERY = Choice.__subclasses__()


def test_the_header_is_up_to_date() -> None:
    assert enums.HEADER.read_text() == enums.header(), "run `python csrc/enums.py`"


def test_every_choice_has_a_header_or_a_field_of_its_own() -> None:
    assert {*enums.PREFIXES} == {*EVERY} - {choices.DropoutOf}
    names = [f"{prefix}{one.name}" for each, prefix in enums.PREFIXES.items() for one in each]
    assert len(names) == len({*names})


@pytest.mark.parametrize("choice", EVERY, ids=lambda choice: choice.__name__)
def test_numbers_count_from_zero(choice: type[Choice]) -> None:
    """The C functions refuse what is not between the first and the last that they know."""
    assert sorted(choice) == [*range(len(choice))]
    assert len({*choice.texts()}) == len(choice)
    assert [choice.of(text) for text in choice.texts()] == [*choice]


def test_a_text_that_is_none() -> None:
    with pytest.raises(ValueError, match="Adapter has no 'twice'; it has add, gate, concat, none"):
        Adapter.of("twice")


def test_users_write_the_texts() -> None:
    assert config.ADAPTERS == ("add", "gate", "concat", "none")
    assert config.ACTIVATIONS == ("gelu", "gelu_tanh", "relu", "silu")
    assert config.MIXERS == ("attention", "filter", "bsarec")
    assert config.NORMS == ("post", "pre", "query")
    assert config.PADDINGS == ("right", "left", "left-zeros")
    assert config.DROPOUT_OF == ("both", "feed-forward")
    assert call.SCORES == ("dot", "cosine")
    assert cpu_library.PRECISIONS == ("fp32", "bf16")
    assert Padding.of("left-zeros") is Padding.LEFT_ZEROS
    assert Activation.GELU_TANH.text == "gelu_tanh"
