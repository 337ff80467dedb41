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

from lares_kernels import CoreConfig, backends, function
from lares_kernels.triton import backend as triton_backend
from lares_kernels.triton import fused
from tests.kernels.host_costs import HostCosts, as_on_a_card, training_step

PUBLISHED = CoreConfig(dropout=0.5, attn_dropout=0.5)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCosts]:
    """Calls on the CPU run as on a card: nothing looks at values, kernels are counted."""
    found = HostCosts()

    def launch(kernel: Any, *args: Any, **options: Any) -> None:
        found.launch(kernel.fn.__name__)

    monkeypatch.setattr(JITFunction, "run", launch)
    as_on_a_card(monkeypatch)
    monkeypatch.setattr(triton_backend, "interpreted", lambda: True)
    for module in (fused, triton_backend):
        monkeypatch.setattr(module, "family_of", lambda device: "sm90")
    backends._choices.clear()
    yield found
    backends._choices.clear()


def test_a_padded_training_step(costs: HostCosts) -> None:
    forward, backward = training_step("triton", PUBLISHED, costs)
    assert forward.total <= 4, str(forward)
    assert backward.total <= 6, str(backward)
    assert forward.waits == backward.waits == 0


def test_a_packed_training_step(costs: HostCosts) -> None:
    forward, backward = training_step("triton", PUBLISHED, costs, packed=True)
    assert forward.total <= 6, str(forward)
    assert backward.total <= 6, str(backward)
    assert (forward.waits, backward.waits) == (2, 0)


def test_a_packed_training_step_that_says_its_greatest_length(
    costs: HostCosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, "_is_free_to_read", lambda tensor: False)
    forward, backward = training_step("triton", PUBLISHED, costs, packed=True, max_length=20)
    assert forward.total <= 5, str(forward)  # the lengths are differences of cu_seqlens
    assert backward.total <= 6, str(backward)
    assert forward.waits == backward.waits == 0


def test_depths_of_their_own(costs: HostCosts) -> None:
    """They are sorted, and the greatest of them is read."""
    depths = torch.tensor([1, 4, 2, 3, 4])
    forward, backward = training_step("triton", PUBLISHED, costs, num_steps=depths)
    assert forward.total <= 9, str(forward)
    assert backward.total <= 6, str(backward)
    assert (forward.waits, backward.waits) == (1, 0)
