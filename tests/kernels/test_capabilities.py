"""Choices that a backend has no code for: it refuses them, and the reference runs the call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lares_kernels import (
    CoreConfig,
    RecurrentCore,
    activations,
    backends,
    config,
    explain,
    use_backend,
)
from lares_kernels.activations import Activation
from lares_kernels.call import Request
from lares_kernels.cuda import library
from lares_kernels.errors import BackendError

TUPLES = {
    "adapter": "ADAPTERS",
    "activation": "ACTIVATIONS",
    "norm": "NORMS",
    "mixer": "MIXERS",
    "padding": "PADDINGS",
}
DEVICES = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}
CORE = CoreConfig(32, 2, 64, 1)


def made_up(name: str, monkeypatch: pytest.MonkeyPatch) -> CoreConfig:
    """A core with a choice that joined the specification a moment ago."""
    names = getattr(config, TUPLES[name])
    monkeypatch.setattr(config, TUPLES[name], (*names, "made-up"))
    more: dict[str, Any] = {"window": 9} if name == "mixer" else {}
    return replace(CORE, **{name: "made-up"}, **more)


@pytest.mark.parametrize("name", TUPLES)
def test_a_choice_that_a_backend_has_never_heard_of(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "device_type", lambda: "cuda")
    core = made_up(name, monkeypatch)
    assert {*backends._BACKENDS} == {*DEVICES, "reference", "equations"}
    for backend, device in DEVICES.items():
        verify = backends._BACKENDS[backend].verify
        assert verify(Request(CORE, device, torch.bfloat16)) is None
        said = verify(Request(core, device, torch.bfloat16))
        assert said is not None
        assert said.startswith(f"{name} is 'made-up'; it serves "), backend
    assert backends._BACKENDS["reference"].verify(Request(core, "cpu", torch.float32)) is None


def test_the_reference_runs_what_the_others_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    silu = activations.ACTIVATIONS["silu"]
    twice = Activation(lambda x: 2 * silu.value(x), lambda x: 2 * silu.derivative(x))
    monkeypatch.setitem(activations.ACTIVATIONS, "made-up", twice)
    options = made_up("activation", monkeypatch)
    core, plain = RecurrentCore(options), RecurrentCore(replace(options, activation="silu"))
    plain.load_state_dict(core.state_dict())
    with torch.no_grad():
        plain.down_weight *= 2
    hidden = torch.randn(2, 5, 32)
    found = core(hidden, num_steps=2, seed=3).last
    with use_backend("reference"):
        wanted = plain(hidden, num_steps=2, seed=3).last
    torch.testing.assert_close(found, wanted)
    assert explain(options, [5, 5], 2).backend == "reference"
    with (
        use_backend("cpu"),
        pytest.raises(BackendError, match="activation is 'made-up'; it serves"),
    ):
        core(hidden)
