"""How many processes a run has, and what they do one before the other."""

from __future__ import annotations

import pytest

from lares.errors import ConfigError
from lares.training import engine

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
