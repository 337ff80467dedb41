"""What a call of the Triton backend asks of the host, its kernels counted instead of run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets kernels here", allow_module_level=True)

from triton.runtime.jit import JITFunction

from lares_kernels import CoreConfig, RecurrentCore, backends, dispatcher, use_backend
from lares_kernels.call import RefineCall
from lares_kernels.triton import backend as triton_backend
from lares_kernels.triton import fused
from tests.kernels.host_costs import HostCosts, make_inputs

PUBLISHED = CoreConfig(dropout=0.5, attn_dropout=0.5)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCosts]:
    """Calls on the CPU run as on a card: nothing looks at values, kernels are counted."""
    found = HostCosts()

    def launch(kernel: Any, *args: Any, **options: Any) -> None:
        found.launch(kernel.fn.__name__)

    monkeypatch.setattr(JITFunction, "run", launch)
    monkeypatch.setattr(dispatcher, "_len_torch_dispatch_stack", lambda: 0)
    monkeypatch.setattr(triton_backend, "interpreted", lambda: True)
    for module in (fused, triton_backend):
        monkeypatch.setattr(module, "family_of", lambda device: "sm90")
    monkeypatch.setattr(RefineCall, "check_values", lambda call: None)
    rows = property(lambda call: call.n_hidden_rows * call.rollouts)
    monkeypatch.setattr(RefineCall, "kept_rows", rows)
    monkeypatch.setenv("LARES_SELF_CHECK", "0")
    backends._choices.clear()
    yield found
    backends._choices.clear()


def step(
    costs: HostCosts, packed: bool = False, config: CoreConfig = PUBLISHED, **options: Any
) -> tuple[HostCosts, HostCosts]:
    """Costs of a training step's forward and backward, the second of its kind."""
    core = RecurrentCore(config)
    hidden, lengths = make_inputs(config.d_model, packed)
    options = {"seed": 3, "num_steps": 4, "precision": "bf16", **options}
    with use_backend("triton"):
        for _ in range(2):
            core.zero_grad()
            hidden.grad = None
            costs.taken()
            with costs:
                out = core(hidden, **lengths, **options)
            forward = costs.taken()
            gradient = torch.ones_like(out.last)
            with costs:
                out.last.backward(gradient)
            backward = costs.taken()
    return forward, backward


def test_a_padded_training_step(costs: HostCosts) -> None:
    forward, backward = step(costs)
    assert forward.total <= 4, str(forward)
    assert backward.total <= 6, str(backward)
    assert forward.waits == backward.waits == 0


def test_a_packed_training_step(costs: HostCosts) -> None:
    forward, backward = step(costs, packed=True)
    assert forward.total <= 6, str(forward)
    assert backward.total <= 6, str(backward)
    assert (forward.waits, backward.waits) == (2, 0)


def test_depths_of_their_own(costs: HostCosts) -> None:
    """They are sorted, and the greatest of them is read."""
    forward, backward = step(costs, num_steps=torch.tensor([1, 4, 2, 3, 4]))
    assert forward.total <= 9, str(forward)
    assert backward.total <= 6, str(backward)
    assert (forward.waits, backward.waits) == (1, 0)
