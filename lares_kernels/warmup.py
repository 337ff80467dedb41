"""Warm up a backend: compile what calls of a core will need before the first one counts."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lares_kernels.module import RecurrentCore
from lares_kernels.spec.config import CoreConfig

_FEW = 2  # sequences


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

    Kernels depend on the core, the types, the length of the longest sequence and a call's options;
    not on the depth or the seed, and on the number of sequences only in that a card may have a kernel
    of its own for at most as many as it has multiprocessors. Evaluation and, if ``training``, training
    with dropout run with few and with many sequences, with one depth for all and with a depth for each,
    with the final state and without. Triton caches compiled kernels on disk.

    Args:
        config: options of the core.
        longest: tokens of the longest sequence to come.
        device, dtype: of ``hidden`` and the parameters.
        training: also run forward and backward with dropout.
        packed: ``hidden`` will be packed with ``cu_seqlens`` instead of padded with ``lengths``.
        precision: of the products, as for :func:`lares_kernels.refine`.
    """
    core = RecurrentCore(config, device, dtype)
    n_depths = 2 if config.is_recurrent else 1
    for n_sequences, trains, by_sequence, state in itertools.product(
        sorted({_FEW, _FEW + _multiprocessors(device)}),
        (False, True) if training else (False,),
        (False, True)[:n_depths],
        (False, True),
    ):
        hidden, sizes = _batch(core, n_sequences, longest, packed)
        depth = torch.ones(n_sequences, dtype=torch.int64, device=device) if by_sequence else 1
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


def _multiprocessors(device: torch.device | str) -> int:
    """Return a card's multiprocessors; 0 for a CPU, whose kernels do not depend on them."""
    if torch.device(device).type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count


def _batch(
    core: RecurrentCore, n_sequences: int, longest: int, packed: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return ``hidden`` of sequences of ``longest`` tokens, and the arguments of their lengths."""
    like = next(core.parameters())
    if packed:
        hidden = like.new_zeros(n_sequences * longest, core.config.d_model)
        numbers = torch.arange(n_sequences + 1, dtype=torch.int32, device=like.device)
        return hidden, {"cu_seqlens": numbers * longest}
    hidden = like.new_zeros(n_sequences, longest, core.config.d_model)
    return hidden, {"lengths": torch.full((n_sequences,), longest, device=like.device)}
