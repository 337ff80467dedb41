"""The CPU kernel's window mixers against the equations in float64, on every instruction set."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lares_kernels import CoreConfig, use_backend
from tests.kernels.problems import (
    FORWARD,
    assert_equal_to_equations,
    assert_newest_rows_alone_suffice,
    make_core,
    outputs_and_gradients,
    relative,
)
from tests.kernels.tools import NEEDS_CPU_KERNEL

pytestmark = NEEDS_CPU_KERNEL

FILTER = CoreConfig(
    d_model=64, n_heads=2, d_ff=256, n_layers=2, mixer="filter", window=20, dropout=0.5
)
BSAREC = replace(FILTER, mixer="bsarec", attn_dropout=0.5)
LENGTHS = [1, 5, 3, 20, 7, 16, 17, 2, 11, 20, 13]
CORES = pytest.mark.parametrize("config", [FILTER, BSAREC], ids=lambda c: c.mixer)


@pytest.mark.usefixtures("instruction_set", "poisoned_memory")
@pytest.mark.parametrize("depth", [1, 4, 12])
@CORES
def test_published_core(config: CoreConfig, depth: int) -> None:
    assert_equal_to_equations("cpu", config, LENGTHS, num_steps=depth)


@pytest.mark.usefixtures("instruction_set", "poisoned_memory")
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
@CORES
def test_adapters_and_no_dropout(config: CoreConfig, adapter: str) -> None:
    config = replace(config, d_model=24, n_heads=3, d_ff=20, window=9, dropout=0.0)
    config = replace(config, adapter=adapter, attn_dropout=0.0, cutoff=4)
    steps = 3 if config.is_recurrent else 1
    assert_equal_to_equations("cpu", config, [1, 9, 4], num_steps=steps)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("window", [1, 2, 7, 50, 130])
@CORES
def test_odd_windows(config: CoreConfig, window: int) -> None:
    config = replace(config, d_model=40, n_heads=5, d_ff=70, window=window, cutoff=5)
    assert_equal_to_equations("cpu", config, [window, 1, (window + 1) // 2], num_steps=2)


@pytest.mark.parametrize("cutoff", [1, 6, 99])
def test_cutoffs(cutoff: int) -> None:
    config = replace(BSAREC, d_model=16, d_ff=24, window=12, cutoff=cutoff, band_share=0.25)
    assert_equal_to_equations("cpu", config, [12, 3], num_steps=2)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("rollouts", [1, 3])
@CORES
def test_depths_and_rollouts(config: CoreConfig, rollouts: int) -> None:
    depths = torch.tensor([[2, 1, 3], [1, 1, 4], [4, 4, 4], [3, 2, 1]])[:, :rollouts]
    config = replace(config, d_model=16, d_ff=24)
    assert_equal_to_equations("cpu", config, [4, 20, 1, 9], num_steps=depths, rollouts=rollouts)


@pytest.mark.parametrize("given", [False, True])
@CORES
def test_only_the_newest_rows_are_computed_at_the_end(config: CoreConfig, given: bool) -> None:
    depths = torch.arange(len(LENGTHS)) % 3 + 1
    assert_newest_rows_alone_suffice("cpu", config, LENGTHS, depths, given)


@CORES
def test_any_number_of_threads_gives_the_same_bits(config: CoreConfig) -> None:
    core = make_core(config, scale=0.1).float()
    lengths = torch.arange(60) % 20 + 1
    hidden = torch.linspace(-1, 1, 60 * 20 * 64).reshape(60, 20, 64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with use_backend("cpu"):
                found.append(outputs_and_gradients(core, hidden, lengths, num_steps=3, seed=2))
    finally:
        torch.set_num_threads(before)
    for mine, wanted in zip(*found, strict=True):
        assert all(map(torch.equal, mine, wanted))


@CORES
def test_changed_parameters_are_seen(config: CoreConfig) -> None:
    """Packed weights are found again by content, which a filter or band scale is part of."""
    core = make_core(config, scale=0.1).float()
    hidden, lengths = torch.randn(2, 20, 64), torch.tensor([20, 4])
    with use_backend("cpu"), torch.no_grad():
        before = core(hidden, lengths).last
        name = "filter_weight" if config.mixer == "filter" else "band_scale"
        getattr(core, name)[-1, 3] += 0.5
        after = core(hidden, lengths).last
    with use_backend("reference"), torch.no_grad():
        wanted = core(hidden, lengths).last
    assert relative(after, wanted) < FORWARD
    assert relative(after, before) > 1e-4
