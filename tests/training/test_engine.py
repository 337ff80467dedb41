"""How many processes a run has, and what they do one before the other."""

from __future__ import annotations

import pytest
import torch

from lares.errors import ConfigError
from lares.training import engine
from lares.training.config import TrainerOptions

WORLDS = [  # processes here, everywhere, devices asked for, what is taken
    (2, 2, 1, (2, 1)),
    (2, 2, 2, (2, 1)),
    (4, 8, 1, (4, 2)),
    (1, 1, 1, (1, 1)),
    (2, 2, 4, "trainer.devices is 4, but torchrun started 2"),
    (1, 1, 2, "trainer.devices is 2, but torchrun started 1"),
    (2, 3, 1, "every machine must have as many"),
]


@pytest.mark.parametrize(("here", "everywhere", "devices", "expected"), WORLDS)
def test_the_world_is_that_of_torchrun(
    monkeypatch: pytest.MonkeyPatch, here: int, everywhere: int, devices: int, expected
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    monkeypatch.setenv("WORLD_SIZE", str(everywhere))
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            engine._processes(devices)
        return
    assert engine._processes(devices) == expected
    assert engine.as_started("lares train") == f"torchrun --nproc-per-node {here} -m lares train"
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert engine._processes(devices) == (devices, 1)
    assert engine.as_started("lares train") == "lares train"


@pytest.mark.parametrize(
    "option", [{"accelerator": "tpu"}, {"accelerator": "mps"}, {"devices": 10**6}]
)
def test_what_the_machine_has_not(option: dict) -> None:
    options = TrainerOptions(**{"accelerator": "cuda", **option})
    if options.accelerator == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=\w+, .* cannot be used here: "):
        engine.launch(options)
