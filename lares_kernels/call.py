"""One call of the recurrence, checked and brought to the form that every backend takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lares_kernels.config import CoreConfig
from lares_kernels.layout import Layout
from lares_kernels.noise import MAX_LAYERS, MAX_ROLLOUTS, MAX_SEQUENCES, MAX_STEPS, STREAM_BITS

PRECISIONS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class RefineCall:
    """Everything about a call but its differentiable tensors.

    Rollouts are sequences of their own here: sequence ``b * G + g`` is rollout ``g`` of the caller's
    sequence ``b``; ``hidden_rows`` says which of the caller's rows each row reads ``H`` from.

    Attributes:
        config: of the core.
        layout: of the ``S = B * G`` sequences, ``N`` rows.
        hidden_rows: (N,) int64 rows of the caller's packed ``hidden``, or None where ``G = 1``.
        rollouts: ``G``.
        num_steps: (S,) int64 depth of each sequence, or None where all run ``max_steps``.
        max_steps: ``T``, the greatest depth.
        seed: 64-bit key of all draws.
        dropout: whether dropout is on.
        product_dtype: in which matrix products are taken; everything else is at least float32.
        state_dtype: float64 for float64 input, else float32.
        zero_state: the state that is not given is zero instead of drawn.
        wants_state: the final state of every row is read; else only the trajectory.
        differentiates: backward will be asked for, so forward keeps what it needs.
    """

    config: CoreConfig
    layout: Layout
    hidden_rows: Tensor | None
    rollouts: int
    num_steps: Tensor | None
    max_steps: int
    seed: int
    dropout: bool
    product_dtype: torch.dtype
    state_dtype: torch.dtype
    zero_state: bool
    wants_state: bool
    differentiates: bool


def product_dtype(precision: str | None, hidden: Tensor) -> torch.dtype:
    """Type of the products: as asked for, else autocast's, else ``hidden``'s."""
    if precision is not None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}"
            )
        return PRECISIONS[precision]
    device_type = hidden.device.type
    if hidden.dtype == torch.float32 and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return hidden.dtype


def check_lengths(lengths: Tensor, n_sequences: int, longest: int | None) -> Tensor:
    """``lengths`` as (B,) int64, each in ``1..longest``."""
    if lengths.dim() != 1 or len(lengths) != n_sequences or lengths.is_floating_point():
        raise ValueError(
            f"lengths must hold {n_sequences} whole numbers, one a sequence; "
            f"got shape {tuple(lengths.shape)} of {lengths.dtype}"
        )
    shortest = int(lengths.min())
    if shortest < 1:
        where = int(lengths.argmin())
        raise ValueError(
            f"sequence {where} has length {shortest}; every sequence needs at least one token"
        )
    if longest is not None and int(lengths.max()) > longest:
        where = int(lengths.argmax())
        raise ValueError(
            f"sequence {where} has length {int(lengths.max())}, more than the {longest} tokens given"
        )
    return lengths.to(torch.int64)


def lengths_of_cu_seqlens(cu_seqlens: Tensor, n_rows: int) -> Tensor:
    """Lengths (B,) int64 of packed sequences from their offsets (B + 1,)."""
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.is_floating_point():
        raise ValueError(
            "cu_seqlens must be a vector of at least two whole numbers, (B + 1,); "
            f"got shape {tuple(cu_seqlens.shape)} of {cu_seqlens.dtype}"
        )
    if int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != n_rows:
        raise ValueError(
            f"cu_seqlens runs from {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}; "
            f"it must run from 0 to the {n_rows} rows of hidden"
        )
    return check_lengths(cu_seqlens.diff(), len(cu_seqlens) - 1, None)


def check_steps(
    config: CoreConfig, num_steps: int | Tensor, n_sequences: int, rollouts: int
) -> tuple[Tensor | None, int]:
    """Depths as ((S,) int64 or None if all are equal, greatest depth)."""
    if isinstance(num_steps, Tensor):
        wanted = ((n_sequences,), (n_sequences, rollouts))
        if tuple(num_steps.shape) not in wanted or num_steps.is_floating_point():
            raise ValueError(
                f"num_steps must be a whole number, or one a sequence {wanted[0]}, or one a rollout "
                f"{wanted[1]}; got shape {tuple(num_steps.shape)} of {num_steps.dtype}"
            )
        if num_steps.dim() == 1:
            num_steps = num_steps[:, None].expand(-1, rollouts)
        steps = num_steps.reshape(-1).to(torch.int64)
        fewest, most = int(steps.min()), int(steps.max())
    else:
        steps, fewest, most = None, num_steps, num_steps
    if fewest < 1 or most > MAX_STEPS:
        raise ValueError(
            f"num_steps is {fewest if fewest < 1 else most}; it must be in 1..{MAX_STEPS}"
        )
    if not config.is_recurrent and most != 1:
        raise ValueError(
            f"num_steps is {most}; with adapter='none' the layers run once, so it must be 1"
        )
    return (None if fewest == most else steps), most


def random_streams(
    sequence_ids: Tensor | None, n_sequences: int, rollouts: int, device: torch.device
) -> Tensor:
    """(S,) int64 first counter word of each rollout of each sequence."""
    if not 1 <= rollouts <= MAX_ROLLOUTS:
        raise ValueError(f"rollouts is {rollouts}; it must be in 1..{MAX_ROLLOUTS}")
    if sequence_ids is None:
        if n_sequences > MAX_SEQUENCES:
            raise ValueError(f"{n_sequences} sequences in one call; the most is {MAX_SEQUENCES}")
        sequence_ids = torch.arange(n_sequences, device=device)
    else:
        if tuple(sequence_ids.shape) != (n_sequences,) or sequence_ids.is_floating_point():
            raise ValueError(
                f"sequence_ids must hold {n_sequences} whole numbers; "
                f"got shape {tuple(sequence_ids.shape)} of {sequence_ids.dtype}"
            )
        sequence_ids = sequence_ids.to(device=device, dtype=torch.int64)
        low, high = int(sequence_ids.min()), int(sequence_ids.max())
        if low < 0 or high >= MAX_SEQUENCES:
            raise ValueError(
                f"sequence_ids run from {low} to {high}; they must be in 0..{MAX_SEQUENCES - 1}"
            )
    rollout = torch.arange(rollouts, device=device) << STREAM_BITS
    return (sequence_ids[:, None] | rollout[None, :]).reshape(-1)


def build_call(
    config: CoreConfig,
    lengths: Tensor,
    *,
    num_steps: int | Tensor,
    seed: int,
    rollouts: int,
    sequence_ids: Tensor | None,
    dropout: bool,
    products: torch.dtype,
    hidden: Tensor,
    zero_state: bool,
    wants_state: bool = True,
    differentiates: bool = False,
) -> RefineCall:
    """Check the options of a call on packed ``hidden`` (N, d) with checked ``lengths`` (B,)."""
    if config.n_layers > MAX_LAYERS:
        raise ValueError(f"CoreConfig.n_layers is {config.n_layers}; the most is {MAX_LAYERS}")
    if not config.is_recurrent and rollouts != 1:
        raise ValueError(
            f"rollouts is {rollouts}; with adapter='none' there is nothing to roll out"
        )
    n_sequences = len(lengths)
    steps, max_steps = check_steps(config, num_steps, n_sequences, rollouts)
    device = hidden.device
    streams = random_streams(sequence_ids, n_sequences, rollouts, device)
    layout = Layout.from_lengths(lengths.to(device).repeat_interleave(rollouts), streams)
    hidden_rows = None
    if rollouts > 1:
        starts = (lengths.cumsum(0) - lengths).to(device).repeat_interleave(rollouts)
        hidden_rows = starts[layout.sequence] + layout.position
    return RefineCall(
        config=config,
        layout=layout,
        hidden_rows=hidden_rows,
        rollouts=rollouts,
        num_steps=None if steps is None else steps.to(device),
        max_steps=max_steps,
        seed=seed & 0xFFFFFFFFFFFFFFFF,
        dropout=dropout and (config.dropout > 0 or config.attn_dropout > 0),
        product_dtype=products,
        state_dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
        zero_state=zero_state,
        wants_state=wants_state,
        differentiates=differentiates,
    )
