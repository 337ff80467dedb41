"""Under deterministic algorithms no scratch tensor of the Triton kernels is filled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lares_kernels import CoreConfig, use_backend
from tests.kernels.catalogues import make_catalogue
from tests.kernels.gpu.test_scratch import deterministic, fills
from tests.kernels.problems import SMALL, exact_problem, outputs_and_gradients
from tests.kernels.triton.interpreted.test_layered import layered

__all__ = ["deterministic", "layered"]
CORES = [
    replace(SMALL, n_layers=1, dropout=0.5, adapter="concat"),
    CoreConfig(16, 2, 32, 1, mixer="filter", window=8),
]


@pytest.mark.usefixtures("deterministic", "layered")
@pytest.mark.parametrize("plan", ["triton", "layered"])
@pytest.mark.parametrize("config", CORES, ids=lambda config: config.mixer)
def test_of_a_core(config: CoreConfig, plan: str) -> None:
    core, hidden, lengths = exact_problem(config, [8, 3, 5])
    core.float()

    def run() -> None:
        with use_backend(plan):
            outputs_and_gradients(core, hidden.float(), lengths, num_steps=2)

    run()  # what is made once is made
    # The kept states, of which kernels do not write all.
    assert fills(run, least=16) == ["empty"]


@pytest.mark.usefixtures("deterministic", "layered")
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_of_a_catalogue(scores: str) -> None:
    problem = make_catalogue(9, 70, 8, n_excluded=3, scores=scores).to(torch.float32)
    assert fills(lambda: problem.results("triton"), least=16) == []
