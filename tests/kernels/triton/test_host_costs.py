"""What a call of the Triton backend asks of the host, its kernels counted instead of run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets kernels here", allow_module_level=True)

from triton.runtime.jit import JITFunction

from lares_kernels import CoreConfig
from lares_kernels.registry import backends
from lares_kernels.triton import backend as triton_backend
from lares_kernels.triton.fused import launch as fused
from tests.kernels.triton.host_costs import HostCosts, StepCosts, as_on_a_card

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
    backends.REFINE.forget()
    yield found
    backends.REFINE.forget()


class TestSteps(StepCosts):
    backend, config = "triton", PUBLISHED
