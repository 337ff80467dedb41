"""A sequence in a batch gets what it gets alone: the check for every backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from tests.kernels.problems import exact_problem, relative

# Lengths behind which a sequence begins before or after the 64th key position of the first one that
# its vector of queries holds (16, 8 or 4 of them), at every place of a vector.
NEAR_A_BLOCK = [
    [5, 64, 4],
    [5, 60, 9],
    [64, 1],
    [63, 2, 7],
    [62, 3],
    [1, 61, 5],
    [7, 57, 3, 9],
    [15, 50, 20],
    [12, 54, 5, 6],
    [3, 65, 4],
    [31, 33, 64],
    [64, 64, 64],
    [130, 7, 64, 9],
]


def results(
    core: RecurrentCore, hidden: Tensor, lengths: Tensor, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Trajectory, state, and gradient of ``hidden``, of a linear function that gives every sequence
    the same weights wherever it is."""
    hidden = hidden.clone().requires_grad_()
    out = core(hidden, lengths, return_trajectory=True, return_state=True, **options)
    places = torch.arange(hidden.shape[1], dtype=hidden.dtype)[:, None] + 1.0
    columns = torch.arange(hidden.shape[2], dtype=hidden.dtype) + 1.0
    weights = (places * 0.7 + columns * 1.3).cos()
    loss = (out.state * weights).sum() + (out.trajectory * columns.sin()).sum()
    (g_hidden,) = torch.autograd.grad(loss, [hidden])
    return out.trajectory.detach(), out.state.detach(), g_hidden


def assert_as_alone(
    backend: str,
    config: CoreConfig,
    lengths: list[int],
    tolerance: float = 0.0,
    g_tolerance: float = 1e-5,
    **options: Any,
) -> None:
    """Every sequence's results are those of a batch of itself with the same number.

    Args:
        backend: whose results.
        config: of the core; its dropout is on.
        lengths: of the sequences.
        tolerance: relative error of trajectory and state; 0: the same bits.
        g_tolerance: of gradients.
        options: of the call.
    """
    core, hidden, sizes = exact_problem(config, lengths)
    core, hidden = core.float().train(), hidden.float()
    options = {"seed": 7, **options}
    if config.is_recurrent:
        options.setdefault("num_steps", 2)
    with use_backend(backend):
        together = results(core, hidden, sizes, **options)
        for i, n in enumerate(lengths):
            alone = results(
                core,
                hidden[i : i + 1, :n],
                sizes[i : i + 1],
                sequence_ids=torch.tensor([i]),
                **options,
            )
            found = (together[0][i : i + 1], *(t[i : i + 1, :n] for t in together[1:]))
            for name, mine, wanted, limit in zip(
                ("trajectory", "state", "gradient"),
                found,
                alone,
                (tolerance, tolerance, g_tolerance),
                strict=True,
            ):
                error = relative(mine, wanted) if limit else float(not torch.equal(mine, wanted))
                assert error <= limit, (lengths, i, name, error)
