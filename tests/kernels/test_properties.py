"""Random shapes and options: packed equals alone, and both programs agree."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from lares_kernels import use_backend
from tests.kernels.problems import make_core, relative
from tests.kernels.random_calls import calls


@settings(max_examples=25, deadline=None, derandomize=True)
@given(calls([2, 5, 8], 20, 70, 4))
def test_packed_equals_alone_and_programs_agree(call) -> None:
    config, lengths, depths, seed = call
    core = make_core(config)
    hidden = torch.randn(sum(lengths), config.d_model, dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    grads = []
    for backend in ("equations", "reference"):
        with use_backend(backend):
            out = core(
                hidden,
                cu_seqlens=offsets,
                num_steps=torch.tensor(depths),
                seed=seed,
                return_state=True,
            )
            loss = out.last.square().sum() + out.state.sum()
            grads.append(torch.autograd.grad(loss, [hidden, *core.parameters()]))
    scale = max(g.norm() for g in grads[0])
    for found, expected in zip(*grads[::-1], strict=True):
        assert (found - expected).norm() <= 1e-10 * (expected.norm() + scale)
    for i, (length, depth) in enumerate(zip(lengths, depths, strict=True)):
        alone = core(
            hidden[None, offsets[i] : offsets[i] + length],
            num_steps=depth,
            seed=seed,
            sequence_ids=torch.tensor([i]),
        )
        assert relative(alone.last[0], out.last[i]) < 1e-12
