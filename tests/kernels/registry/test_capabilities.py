"""Choices that a backend has no code for: it refuses them, and the reference runs the call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lares_kernels import CoreConfig, RecurrentCore, explain, use_backend
from lares_kernels.binding import cuda_library as library
from lares_kernels.reference import activations
from lares_kernels.reference.activations import Activation
from lares_kernels.registry.backends import REFINE, options_of, partly_served, verify
from lares_kernels.spec import config
from lares_kernels.spec.call import Request
from lares_kernels.spec.errors import BackendError
from lares_kernels.spec.options import CallOptions

TUPLES = {
    "adapter": "ADAPTERS",
    "activation": "ACTIVATIONS",
    "norm": "NORMS",
    "mixer": "MIXERS",
    "padding": "PADDINGS",
    "dropout_of": "DROPOUT_OF",
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
    assert {*REFINE.backends} == {*DEVICES, "reference", "equations"}
    for backend, device in DEVICES.items():
        assert verify(REFINE.named(backend), Request(CORE, device, torch.bfloat16)) is None
        said = verify(REFINE.named(backend), Request(core, device, torch.bfloat16))
        assert said is not None
        assert said.startswith(f"{name} is 'made-up'; it serves "), backend
    assert verify(REFINE.named("reference"), Request(core, "cpu", torch.float32)) is None


@pytest.mark.parametrize("option", CallOptions._field_defaults)
def test_an_option_of_a_call_that_a_backend_has_never_heard_of(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands for one that joined a moment ago is one that backend ``cpu`` does not name."""
    cpu = REFINE.named("cpu")
    served = cpu.serves
    assert served.options is not None
    fewer = tuple(name for name in served.options if name != option)
    monkeypatch.setattr(cpu, "serves", replace(served, options=fewer), raising=False)
    REFINE.forget()
    try:
        told = CallOptions(CORE.key, "cpu", "fp32")
        with_it = told._replace(**{option: 2 if option == "rollouts" else True})
        asked = options_of(with_it._asdict())
        assert options_of(told._asdict()) == ()
        assert asked == (
            () if option == "max_steps" else (option,)
        )  # one step is the default: True
        for name in ("cpu", "reference"):
            request = Request(CORE, "cpu", torch.float32, asked or (option,))
            said = verify(REFINE.named(name), request)
            assert (said is None) == (name == "reference")
            assert said is None or said.startswith(
                f"the call has {option}; of its options it serves"
            )
    finally:
        monkeypatch.undo()
        REFINE.forget()


def test_every_option_of_a_call_is_known_to_this_packages_backends() -> None:
    """So that calls need not say which they have."""
    assert not partly_served()


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


@pytest.mark.parametrize("backend", ["reference", "equations"])
@pytest.mark.parametrize("name", ["adapter", "activation", "norm", "mixer"])
def test_the_reference_names_a_choice_that_it_has_no_equations_for(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that has joined the specification, and nothing else yet."""
    core = RecurrentCore(made_up(name, monkeypatch))
    said = f"{name} is 'made-up', of which lares_kernels/reference has no equations"
    with use_backend(backend), pytest.raises(BackendError, match=said):
        core(torch.randn(2, 9, 32))
