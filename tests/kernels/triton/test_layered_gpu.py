"""The layered Triton plan on a card, against the equations in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lares_kernels import CoreConfig, RecurrentCore, explain, use_backend
from tests.kernels.problems import VARIANTS, name
from tests.kernels.triton import test_triton_gpu

pytestmark = pytest.mark.gpu

DROPOUT = {"dropout": 0.5, "attn_dropout": 0.25}
LENGTHS = [1, 200, 33, 64, 65, 7, 128, 20]


def check(config: CoreConfig, *arguments: Any, **options: Any) -> None:
    """With smaller weights: else scores are so large that float32's rounding shows in any program."""
    test_triton_gpu.check(config, *arguments, scale=0.5 * config.d_model**-0.5, **options)


def wide(d_model: int, head: int = 32) -> CoreConfig:
    return CoreConfig(d_model=d_model, n_heads=d_model // head, d_ff=2 * d_model, **DROPOUT)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("width", [128, 256, 512])
def test_widths(precision: str, width: int) -> None:
    check(wide(width), [1, 20, 5, 9, 20, 3], precision, num_steps=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", [32, 64, 128, 256])
def test_heads_and_lengths(precision: str, head: int) -> None:
    check(wide(256, head), LENGTHS, precision, num_steps=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_thousand_tokens(precision: str) -> None:
    config = replace(wide(64), n_layers=1)
    check(config, [1024, 1000, 3, 130], precision, num_steps=1)


@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_every_option(config: CoreConfig) -> None:
    config = replace(config, d_model=72, n_heads=3, **DROPOUT)
    options = {"num_steps": 3} if config.is_recurrent else {}
    check(config, LENGTHS, "fp32", **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("width", "window"), [(64, 200), (72, 9), (256, 50)])
@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_whole_windows(mixer: str, width: int, window: int, precision: str) -> None:
    config = replace(wide(width, width // 2), mixer=mixer, window=window)
    check(config, [window, 1, (window + 1) // 2], precision, num_steps=2)


def test_depths_and_rollouts() -> None:
    depth = torch.tensor([[1, 3], [2, 2], [3, 1], [1, 1], [2, 3], [3, 3], [1, 2], [2, 1]])
    check(wide(128), LENGTHS, "fp32", num_steps=depth.cuda(), rollouts=2)


def test_the_plan_is_named_and_serves_training() -> None:
    config = wide(128)
    with use_backend("triton"):
        assert "layer by layer" in explain(config, [20, 3], 2, device="cuda").plan
        core = RecurrentCore(config).cuda().train()
        hidden = torch.randn(2, 20, 128, device="cuda")
        runs = [core(hidden, torch.tensor([20, 3]), num_steps=2, seed=3).last for _ in range(2)]
    assert torch.equal(*runs)
