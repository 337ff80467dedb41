"""What a call of the CUDA backend asks of the host; the emulator counts the kernels that it runs."""

from __future__ import annotations

import ctypes

import pytest
import torch

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.binding import cuda_library as library
from tests.kernels.triton.host_costs import HostCosts, StepCosts, as_on_a_card

CORE = CoreConfig(d_model=32, n_heads=2, d_ff=32, n_layers=2, dropout=0.5, attn_dropout=0.5)


@pytest.fixture
def costs(emulator: None, monkeypatch: pytest.MonkeyPatch) -> HostCosts:
    as_on_a_card(monkeypatch)
    found = HostCosts()
    run = library.run

    def counted(function: str, call: ctypes.Structure) -> None:
        launches = ctypes.c_int.in_dll(library.loaded(), "lares_emulated_launches")
        before = launches.value
        run(function, call)
        found.launches[function] += launches.value - before

    monkeypatch.setattr(library, "run", counted)
    return found


class TestSteps(StepCosts):
    backend, config = "cuda", CORE


def test_few_sequences(costs: HostCosts) -> None:
    """Packing, the one kernel, and the last state in memory of its own; not at the first call."""
    core, hidden, lengths = RecurrentCore(CORE).eval(), torch.zeros(1, 7, 32), torch.tensor([7])
    for _ in range(2):
        costs.taken()
        with use_backend("cuda"), torch.no_grad(), costs:
            core(hidden, lengths, num_steps=4, precision="bf16")
    assert costs.total <= 3, str(costs)
    assert costs.waits == 0
