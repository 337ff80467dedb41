"""Lay out the rows of a call in the layered plan: packed, the deepest sequences first."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.gpu.scratch import unfilled_like, zeroed
from lares_kernels.spec.call import RefineCall
from lares_kernels.spec.noise import MAX_SEQUENCES, STREAM_BITS


class PackedRows(NamedTuple):
    """Describe ``N`` rows of ``S`` sequences, taken in the order of their depth, deepest first.

    Sequences that are active at a step come first, and so do their rows.

    Attributes:
        starts: (S + 1,) int32, first row of each sequence; the last is ``N``.
        ends: (S,) int64, row of each sequence's newest token.
        streams: (S,) int32, first counter word of each sequence's draws.
        stream, position: (N,) int32, address of each row's draws.
        hidden_row: (N,) int32, row of the caller's ``hidden``, padding counted.
        state_row: (N,) int64, row of the caller's states.
        rollout: (N,) int64, number of the row's rollout.
        newest: (S,) int64, ``ends`` by the caller's number of the sequence.
        keys: (S,) int32, rows at the start of each sequence that may be attended to, since the others
            are padding; None: all.
        hidden_padding: (N, 1) bool, rows that are padding and so zero; None: no row is padding.
        longest: rows of the longest sequence.
        rows, sequences: numbers of those active at step 1, 2, ...
    """

    starts: Tensor
    ends: Tensor
    streams: Tensor
    stream: Tensor
    position: Tensor
    hidden_row: Tensor
    state_row: Tensor
    rollout: Tensor
    newest: Tensor
    keys: Tensor | None
    hidden_padding: Tensor | None
    longest: int
    rows: list[int]
    sequences: list[int]

    @property
    def n_rows(self) -> int:
        return self.rows[0]


# Stands second among the numbers of a handover whose tensors are a plan's rows.
_ROWS = -1
_BACKEND = "triton"
_N_TENSORS = PackedRows._fields.index("longest")


def rows_of(call: RefineCall) -> PackedRows:
    """Return the rows that the call's forward handed over, or those of :func:`pack_rows`."""
    handover = call.handover_of(_BACKEND)
    if handover is None or handover.numbers[1:2] != (_ROWS,):
        return pack_rows(call)
    steps = call.options.max_steps
    _, _, longest, *there = handover.numbers
    given = iter(handover.tensors)
    tensors = [next(given) if is_there else None for is_there in there[:_N_TENSORS]]
    counts = there[_N_TENSORS:]
    return PackedRows._make([*tensors, longest, counts[:steps], counts[steps:]])


def hand_over(call: RefineCall, rows: PackedRows) -> None:
    """Leave ``rows`` for backward, which then need not wait for their sizes."""
    if call.handover is None:
        return
    tensors: tuple[Any, ...] = rows[:_N_TENSORS]
    call.handover.tensors = tuple(each for each in tensors if each is not None)
    there = [int(each is not None) for each in tensors]
    longest = call.padded_length or rows.longest  # as plans are chosen by
    call.handover.by = _BACKEND
    call.handover.numbers = (longest, _ROWS, rows.longest, *there, *rows.rows, *rows.sequences)


def pack_rows(call: RefineCall) -> PackedRows:
    """Find every row's place. Waits for the device once, for the sizes that launches need.

    Raises:
        ValueError: a length, depth or id is out of range.
    """
    device, groups = call.lengths.device, call.options.rollouts
    if call.pads_with_zero_tokens:
        call.check_values()  # below, lengths are those with padding
    lengths = call.row_lengths.repeat_interleave(groups) if groups > 1 else call.row_lengths
    n_sequences = len(lengths)
    order = torch.arange(n_sequences, device=device)
    if call.num_steps is not None:
        order = torch.argsort(call.num_steps, descending=True, stable=True)
    ordered = lengths[order]
    starts = zeroed(n_sequences + 1, dtype=torch.int64, device=device)
    torch.cumsum(ordered, 0, out=starts[1:])
    longest, n_rows, rows, sequences = _sizes(call, starts, order)

    sequence = torch.repeat_interleave(ordered, output_size=n_rows)
    start = starts[sequence]
    position = torch.arange(n_rows, device=device) - start
    number = order[sequence]
    group = number // groups
    rollout = number - group * groups
    if call.padded_length:
        first = position
        if call.left:
            first = position + call.padded_length - ordered[sequence]
        hidden_row = group * call.padded_length + first
        state_row = number * call.padded_length + first
    else:
        before = call.lengths.cumsum(0) - call.lengths
        hidden_row = before[group] + position
        state_row = before[group] * groups + rollout * ordered[sequence] + position
    ids = call.sequence_ids
    if ids is None:
        ids = torch.arange(len(call.lengths), device=device)
    streams = ids[order // groups] | (order % groups) << STREAM_BITS
    keys, ends = None, starts[1:] - 1
    if call.config.mixes_window:
        tokens = call.lengths[order // groups]
        keys, ends = tokens.to(torch.int32), starts[:-1] + tokens - 1
    newest = unfilled_like(order)
    newest[order] = ends
    hidden_padding = None
    if call.pads_with_zero_tokens:
        hidden_padding = (position < call.padded_length - call.lengths[group]).unsqueeze(1)
    return PackedRows(
        starts.to(torch.int32),
        ends,
        streams.to(torch.int32),
        streams[sequence].to(torch.int32),
        position.to(torch.int32),
        hidden_row.to(torch.int32),
        state_row,
        rollout,
        newest,
        keys,
        hidden_padding,
        longest,
        rows,
        sequences,
    )


def _sizes(
    call: RefineCall, starts: Tensor, order: Tensor
) -> tuple[int, int, list[int], list[int]]:
    """Return the rows of the longest sequence and of all, and the rows and sequences of each
    step, checked."""
    limits = [call.lengths.max(), call.lengths.min(), starts[-1]]
    if call.sequence_ids is not None:
        limits += [call.sequence_ids.min(), call.sequence_ids.max()]
    found = [torch.stack(limits)]
    if call.num_steps is not None:
        depths = call.num_steps[order].flip(0)  # ascending
        steps = torch.arange(1, call.options.max_steps + 1, device=starts.device)
        sequences = len(order) - torch.searchsorted(depths, steps)
        found += [sequences, starts[sequences], depths[:1], depths[-1:]]
    longest, shortest, n_rows, *others = torch.cat(found).tolist()
    most = call.padded_length or call.n_hidden_rows
    wrong = shortest < 1 or longest > most
    wrong |= not call.padded_length and n_rows != call.n_hidden_rows * call.options.rollouts
    if call.sequence_ids is not None:
        low, high, *others = others
        wrong |= low < 0 or high >= MAX_SEQUENCES
    steps_run = [len(order)] * call.options.max_steps
    rows = [n_rows] * call.options.max_steps
    if call.num_steps is not None:
        *others, least, greatest = others
        steps_run, rows = others[: call.options.max_steps], others[call.options.max_steps :]
        wrong |= least < 1 or greatest > call.options.max_steps
    if wrong:
        call.check_values()
        raise ValueError("lengths, num_steps or sequence_ids are out of range")
    return call.padded_length if call.computes_padding else longest, n_rows, rows, steps_run
