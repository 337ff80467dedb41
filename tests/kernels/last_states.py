"""A check for backends whose kernels write a call's last states where they lie alone."""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels import CoreConfig, use_backend
from tests.kernels.problems import make_core


def check_last_states(
    backend: str, config: CoreConfig, rollouts: int = 1, precision: str = "fp32", atol: float = 2e-3
) -> None:
    """They are the trajectory's; gradients of both come together as those of the equations."""
    core = make_core(config).float()
    d = config.d_model
    lengths = torch.tensor([9, 2, 5])
    depth: int | Tensor = torch.tensor([1, 3, 2]) if config.is_recurrent else 1
    gradients = []
    for each in ("equations", backend):
        hidden = torch.randn(3, 9, d, generator=torch.Generator().manual_seed(0)).requires_grad_()
        for trained in (True, False):
            with use_backend(each), torch.set_grad_enabled(trained):
                out = core(
                    hidden, lengths, num_steps=depth, rollouts=rollouts, return_trajectory=True,
                    precision=precision if each == backend else "fp32",
                )  # fmt: skip
            assert out.trajectory is not None
            assert torch.equal(out.last, out.trajectory.select(-2, -1))
            assert out.last.untyped_storage().nbytes() == out.last.numel() * 4
            if trained:
                loss = (out.last * torch.linspace(0, 1, d)).sum() + out.trajectory.square().mean()
                gradients.append(torch.autograd.grad(loss, [hidden, *core.parameters()]))
    largest = max(float(wanted.abs().max()) for wanted in gradients[0])
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=atol * largest, rtol=0.0)
