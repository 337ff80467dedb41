"""Every pair of choices, run on every backend of this machine, and what cards' backends say of them."""

from __future__ import annotations

import pytest
import torch

from benchmarks.report.support import PAGE, page
from lares_kernels.binding import cuda_library as library
from lares_kernels.binding.cpu_library import load
from tests.kernels import pairs

BACKENDS = ["reference"] + ([] if isinstance(load(), str) else ["cpu"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pair", pairs.PAIRS, ids=pairs.name)
def test_pair(backend: str, pair: dict[str, str]) -> None:
    """They serve all that the specification knows."""
    config = pairs.core_with(pair, 16)
    if config is not None:
        pairs.check(backend, config, "fp32", 1e-4)


@pytest.mark.parametrize(("backend", "least"), [("triton", 16), ("cuda", 16)])
def test_cards_backends_serve_a_combination_or_say_why_not(
    backend: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "device_type", lambda: "cuda")
    served = pairs.served_cores(backend, 32, "cuda", torch.float16)
    assert len(served) >= least  # four adapters with four activations


def test_the_page_of_what_is_supported_is_fresh() -> None:
    """``python -m benchmarks.report.support`` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
