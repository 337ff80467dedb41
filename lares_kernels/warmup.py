"""``warmup``: let a backend compile what calls of a core will need, before the first one counts."""

from __future__ import annotations

import itertools

import torch

from lares_kernels.config import CoreConfig
from lares_kernels.module import RecurrentCore


def warmup(
    config: CoreConfig,
    longest: int,
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.float32,
    *,
    training: bool = True,
    packed: bool = False,
    precision: str | None = None,
) -> None:
    """Run small calls of a core of ``config``, so that later ones find their kernels compiled.

    Kernels depend on the core, the types, the length of the longest sequence and which options a
    call has; neither on the number of sequences, nor on the depth, nor on the seed. Run are: evaluation
    and, where asked for, training with dropout, each with one depth for all and with a depth for
    each sequence, with the final state and without. Triton keeps what it compiles on disk.

    Args:
        config: of the core.
        longest: tokens of the longest sequence there will be.
        device, dtype: of ``hidden`` and the parameters.
        training: forward and backward with dropout too.
        packed: ``hidden`` will be packed with ``cu_seqlens`` instead of padded with ``lengths``.
        precision: of the products, as for :func:`lares_kernels.refine`.
    """
    core = RecurrentCore(config, device, dtype)
    shape = (2 * longest, config.d_model) if packed else (2, longest, config.d_model)
    hidden = torch.zeros(shape, device=device, dtype=dtype)
    sizes = {"lengths": torch.full((2,), longest, device=device)}
    if packed:
        sizes = {"cu_seqlens": torch.arange(3, dtype=torch.int32, device=device) * longest}
    depths: list[int | torch.Tensor] = [1]
    if config.is_recurrent:
        depths.append(torch.tensor([1, 1], device=device))
    for trains, depth, state in itertools.product(
        (False, True) if training else (False,), depths, (False, True)
    ):
        core.train(trains)
        with torch.set_grad_enabled(trains):
            out = core(
                hidden.requires_grad_(trains),
                num_steps=depth,
                return_state=state,
                seed=0,  # the caller's generator goes on as if nothing had run
                precision=precision,
                **sizes,
            )
            if trains:
                loss = out.last.sum() if out.state is None else out.last.sum() + out.state.sum()
                loss.backward()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
