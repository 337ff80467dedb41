"""Provide ``refine_states``: the state of every token after chosen steps, each differentiable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lares_kernels.common.whole import contiguous_int64, whole_number, whole_numbers
from lares_kernels.module import RecurrentCore
from lares_kernels.spec.call import check_depth, draws, has_dropout
from lares_kernels.spec.layout import Layout
from lares_kernels.spec.lengths import check_lengths, check_packed, lengths_of
from lares_kernels.spec.seeds import seed_of_call


def refine_states(
    core: RecurrentCore,
    hidden: Tensor,
    cu_seqlens: Tensor | None,
    steps: Sequence[int],
    *,
    lengths: Tensor | None = None,
    num_steps: Tensor | None = None,
    state: Tensor | str | None = None,
    seed: int | Tensor | None = None,
    sequence_ids: Tensor | None = None,
    precision: str | None = None,
) -> list[Tensor]:
    """Return states of all tokens after each of ``steps``, as one run of ``refine`` computes them.

    The run is split after each of these steps (``steps_done``): one launch for each of ``steps``,
    with one pass of the states through memory between them.

    Args:
        core: a recurrent one; in training mode it applies dropout.
        hidden: (N, d) packed rows.
        cu_seqlens: (B + 1,) int32 offsets; or None, and ``lengths`` (B,).
        steps: steps to return states of, ascending, at least 1.
        num_steps: (B,) integers, depth of each sequence; None: the last of ``steps``. Past its own
            depth a sequence's last states are repeated.
        state, seed, sequence_ids, precision: as in ``refine``.

    Returns:
        A tensor (N, d) for each of ``steps``.

    Raises:
        ValueError: ``steps`` do not ascend, or an argument does not fit; the message names it.
    """
    if not core.config.is_recurrent:
        raise ValueError("a core with adapter='none' has no steps to read states after")
    if hidden.dim() != 2:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}; it must be packed, (N, d)")
    if not isinstance(steps, Iterable):
        raise TypeError(f"steps is {steps!r}; it must be whole numbers, in ascending order")
    steps = [whole_number("a number of steps", step) for step in steps]
    for step in steps:
        check_depth(step)
    if not steps or any(later <= step for step, later in pairwise(steps)):
        raise ValueError(f"steps are {list(steps)}; give at least one, in ascending order")
    # One for all parts of the run.
    draws_any = core.training and draws(core.config, state, has_dropout(core.config))
    seed = seed_of_call(seed, draws_any, hidden.device)
    lengths = contiguous_int64(lengths_of(hidden, lengths, cu_seqlens, 0))
    if sequence_ids is None:
        sequence_ids = torch.arange(len(lengths), device=hidden.device)
    if num_steps is not None:
        check_lengths(lengths, None)
        check_packed(lengths, hidden.shape[0])
        layout = Layout.from_lengths(lengths, sequence_ids)
        num_steps = whole_numbers("num_steps", num_steps, ((len(lengths),),)).to(hidden.device)
        check_depth(int(num_steps.min()))
    found: list[Tensor] = []
    current, done = state, 0
    for step in steps:
        # The sequences that still reason; all of them, unless some are done.
        rows, ids, sizes, depths = None, sequence_ids, lengths, num_steps
        if num_steps is not None:
            going = num_steps > done
            if not bool(going.any()):
                found.append(found[-1])
                continue
            if not bool(going.all()):
                part, rows = layout.select(going)
                ids, sizes, depths = part.streams, part.lengths, num_steps[going]
        before = current[rows] if rows is not None and isinstance(current, Tensor) else current
        refined = core(
            hidden if rows is None else hidden[rows],
            lengths=sizes,
            num_steps=step - done if depths is None else depths.clamp(max=step) - done,
            state=before,
            steps_done=done,
            seed=seed,
            sequence_ids=ids,
            return_state=True,
            precision=precision,
        ).state
        if rows is not None and isinstance(current, Tensor):
            refined = current.index_copy(0, rows, refined)
        found.append(refined)
        current, done = refined, step
    return found
