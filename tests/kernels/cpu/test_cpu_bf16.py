"""The CPU kernel's products in bfloat16, by the rule of twice the yardstick.

The yardstick is the error of the equations in plain PyTorch with products in bfloat16, against the
equations in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lares_kernels import CoreConfig, cpu_peak, explain, use_backend
from lares_kernels.binding import cpu_library as lib
from tests.kernels.cpu.test_cpu import LENGTHS, PUBLISHED
from tests.kernels.problems import (
    VARIANTS,
    YARDSTICKS,
    make_core,
    name,
    outputs_and_gradients,
    relative,
)
from tests.kernels.tools import NEEDS_CPU_KERNEL, cpu_sets

pytestmark = NEEDS_CPU_KERNEL


@pytest.fixture(params=cpu_sets("bf16"))
def bf16_set(request: pytest.FixtureRequest) -> Any:
    """Every instruction set that serves bf16, those that do not round among them."""
    with lib.use_instruction_set(request.param):
        yield request.param


def assert_within_yardsticks(config: CoreConfig, lengths: list[int], **options: Any) -> None:
    core = make_core(config, scale=0.1).float().double()
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(len(lengths), max(lengths), config.d_model, generator=generator).double()
    sizes = torch.tensor(lengths)
    with use_backend("equations"):
        exact = outputs_and_gradients(core, hidden, sizes, **options)
        core.float()
        rounded = outputs_and_gradients(core, hidden.float(), sizes, precision="bf16", **options)
    with use_backend("cpu"):
        found = outputs_and_gradients(core, hidden.float(), sizes, precision="bf16", **options)
    for kind in range(2):  # outputs, gradients
        # What is next to nothing beside the others is measured on their scale.
        floor = 1e-2 * max(float(wanted.detach().norm()) for wanted in exact[kind])

        def errors(
            tensors: list[torch.Tensor], of: int = kind, floor: float = floor
        ) -> list[float]:
            return [
                float((mine.double() - wanted).norm() / wanted.norm().clamp(min=floor))
                for mine, wanted in zip(tensors, exact[of], strict=True)
            ]

        with torch.no_grad():
            assert max(errors(found[kind])) <= YARDSTICKS * max(errors(rounded[kind]))


@pytest.mark.usefixtures("bf16_set", "poisoned_memory")
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_published_core(depth: int) -> None:
    assert_within_yardsticks(PUBLISHED, LENGTHS, num_steps=depth)


@pytest.mark.usefixtures("bf16_set", "poisoned_memory")
@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_window_mixers(mixer: str) -> None:
    config = replace(PUBLISHED, mixer=mixer, window=max(LENGTHS))
    assert_within_yardsticks(config, LENGTHS, num_steps=4)


@pytest.mark.usefixtures("bf16_set", "poisoned_memory")
@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_every_variant(config: CoreConfig) -> None:
    config = replace(config, dropout=0.25, attn_dropout=0.125)
    assert_within_yardsticks(config, LENGTHS, num_steps=3 if config.is_recurrent else 1)


@pytest.mark.usefixtures("bf16_set", "poisoned_memory")
@pytest.mark.parametrize(
    ("width", "heads", "inner"), [(8, 1, 1), (24, 3, 20), (40, 5, 70), (128, 4, 512), (200, 5, 300)]
)
def test_odd_shapes(width: int, heads: int, inner: int) -> None:
    config = CoreConfig(width, heads, inner, 2, dropout=0.5, attn_dropout=0.1)
    assert_within_yardsticks(config, [1, 130, 9, 33], num_steps=2)


@pytest.mark.usefixtures("bf16_set")
def test_depths_and_rollouts() -> None:
    depths = torch.tensor([[2, 1, 3], [1, 1, 4], [4, 4, 4], [3, 2, 1]])
    assert_within_yardsticks(PUBLISHED, [4, 9, 1, 30], num_steps=depths, rollouts=3)


def test_products_are_rounded_only_by_a_set_that_says_so(bf16_set: str) -> None:
    core = make_core(PUBLISHED, scale=0.1).float()
    hidden = torch.randn(2, 9, 64)
    with use_backend("cpu"), torch.no_grad():
        single = core(hidden, precision="fp32").last
        asked = core(hidden, precision="bf16").last
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(core(hidden).last, asked)
    if bf16_set.endswith("_bf16"):
        assert 1e-4 < relative(asked, single) < 5e-2
    else:
        assert torch.equal(asked, single)


@pytest.mark.usefixtures("bf16_set")
def test_a_row_has_the_same_bits_wherever_it_lies() -> None:
    # Alone, in a full tile, and as the last row of a tile that is not full.
    core = make_core(PUBLISHED, scale=0.1).float()
    hidden = torch.randn(37, 9, 64, generator=torch.Generator().manual_seed(2))
    ids = torch.arange(37)
    with use_backend("cpu"), torch.no_grad():
        together = core(hidden, num_steps=2, sequence_ids=ids, precision="bf16").last
        for i in (0, 20, 36):
            one = slice(i, i + 1)
            alone = core(hidden[one], num_steps=2, sequence_ids=ids[one], precision="bf16").last
            assert torch.equal(alone, together[one])


@pytest.mark.usefixtures("bf16_set")
def test_beside_products_of_torch() -> None:
    # Which may run on the same matrix unit, set up in another way.
    core = make_core(PUBLISHED, scale=0.1).float()
    hidden, x = torch.randn(40, 9, 64), torch.randn(100, 72).bfloat16()
    with use_backend("cpu"), torch.no_grad():
        ours, theirs = core(hidden, precision="bf16").last, x @ x.T
        for _ in range(3):
            assert torch.equal(x @ x.T, theirs)
            assert torch.equal(core(hidden, precision="bf16").last, ours)


def test_the_choice_is_the_faster_one_and_is_told() -> None:
    chosen, *others = lib.instruction_sets("bf16")
    peaks = {}
    for other in (chosen, *others):
        with lib.use_instruction_set(other):
            peaks[other] = cpu_peak("bf16")
    assert peaks[chosen] >= 0.7 * max(peaks.values())
    with use_backend("cpu"):
        assert f"({chosen})" in str(explain(PUBLISHED, [3, 4], 2, precision="bf16"))
