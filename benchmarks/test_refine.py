"""Time of the recurrence, forward and backward, by backend: ``pytest benchmarks/ --benchmark-only``.

Each backend is first held to the equations in float64; a benchmark whose check fails reports nothing.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, available_backends, use_backend

CONFIG = CoreConfig(d_model=64, n_heads=2, d_ff=256, n_layers=2, dropout=0.5, attn_dropout=0.5)
STEPS, SEQUENCES, LONGEST = 4, 512, 20
BACKENDS = [name for name, state in available_backends().items() if state == "usable"]
# Twice what plain PyTorch in float32 differs from float64 by, over all outputs and gradients.
YARDSTICKS = 2


@cache
def problem(training: bool) -> tuple[RecurrentCore, Tensor, Tensor]:
    """Sequences as short as training prefixes are: geometric lengths, mean about 5, at most 20."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    core = RecurrentCore(CONFIG).train(training)
    lengths = torch.empty(SEQUENCES).geometric_(0.2, generator=generator).clamp_(1, LONGEST).long()
    hidden = torch.randn(SEQUENCES, LONGEST, CONFIG.d_model, generator=generator)
    return core, hidden.requires_grad_(training), lengths


def run(backend: str, training: bool, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Last rows, and in training every gradient, too."""
    core, hidden, lengths = problem(training)
    core, hidden = core.to(dtype), hidden.detach().to(dtype).requires_grad_(training)
    with use_backend(backend), torch.set_grad_enabled(training):
        out = core(hidden, lengths, num_steps=STEPS, seed=3).last
        if not training:
            return [out]
        return [
            out.detach(),
            *torch.autograd.grad(out.square().sum(), [hidden, *core.parameters()]),
        ]


def errors(backend: str, training: bool) -> list[float]:
    exact = run("equations", training, torch.float64)
    found = run(backend, training)
    scale = max(float(tensor.norm()) for tensor in exact[1:]) if training else 0.0
    # A gradient that is zero but for rounding (a key's bias) is measured on the largest one's scale.
    return [
        float((mine.double() - wanted).norm() / max(float(wanted.norm()), 1e-6 * scale))
        for mine, wanted in zip(found, exact, strict=True)
    ]


@pytest.mark.parametrize("training", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_refine(benchmark, backend: str, training: bool) -> None:
    yardstick = errors("equations", training)
    for mine, plain in zip(errors(backend, training), yardstick, strict=True):
        assert mine <= YARDSTICKS * plain + 1e-6, "not equal to the equations: no time is reported"
    core, _, lengths = problem(training)
    core.float()
    benchmark.extra_info |= {"tokens": int(lengths.sum()), "torch_threads": torch.get_num_threads()}
    benchmark.pedantic(run, args=(backend, training), rounds=15, warmup_rounds=2)
