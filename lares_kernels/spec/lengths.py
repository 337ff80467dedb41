"""Check lengths of sequences, and derive those of packed ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from lares_kernels.common.dispatcher import can_be_read
from lares_kernels.common.whole import described, is_whole


def check_lengths(lengths: Tensor, longest: int | None) -> None:
    """Raise ``ValueError`` unless ``lengths`` (B,) are each in ``1..longest``."""
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


def check_packed(lengths: Tensor, n_rows: int) -> None:
    """Raise ``ValueError`` unless ``lengths`` (B,) of packed sequences add up to the rows of hidden."""
    # No length exceeds a right sum; but that of huge ones may wrap round to be right.
    if int(lengths.sum()) != n_rows or int(lengths.max()) > n_rows:
        total = sum(lengths.tolist())
        raise ValueError(
            f"packed sequences have {total} tokens in all (cu_seqlens runs from 0 to {total}); "
            f"hidden has {n_rows} rows"
        )


def check_max_length(max_length: int, least: int = 0) -> None:
    """Raise ``ValueError`` unless a call of packed sequences can have it; 0 stands for none."""
    if max_length < least:
        raise ValueError(f"max_length is {max_length}; it must be at least {least}")


def check_lengths_given(lengths: Tensor, max_length: int) -> None:
    """Raise ``ValueError`` unless no length exceeds ``max_length``, if there is one."""
    if max_length and int(lengths.max()) > max_length:
        where = int(lengths.argmax())
        raise ValueError(
            f"max_length is {max_length}, but sequence {where} has {int(lengths.max())} tokens: "
            "give the greatest length, or leave it out"
        )


def lengths_of_cu_seqlens(cu_seqlens: Tensor) -> Tensor:
    """Return lengths (B,) int64 of packed sequences from their offsets (B + 1,)."""
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2 or not is_whole(cu_seqlens):
        raise ValueError(
            "cu_seqlens must be a vector of at least two whole numbers, (B + 1,); "
            f"got {described(cu_seqlens)}"
        )
    return cu_seqlens.to(torch.int64).diff()


def is_free_to_read(tensor: Tensor) -> bool:
    """Return True if reading the values of ``tensor`` waits for nothing."""
    return tensor.is_cpu


def lengths_of(
    hidden: Tensor,
    lengths: Tensor | Sequence[int] | None,
    cu_seqlens: Tensor | None,
    max_length: int,
) -> Tensor:
    """Return the length of each sequence, (B,) integers on ``hidden``'s device.

    Those of packed sequences are read, except on a device if ``max_length`` is given.
    """
    if max_length and hidden.dim() == 3:
        raise ValueError(
            "max_length goes with packed hidden (N, d); of (B, L, d) the greatest length is L"
        )
    if hidden.dim() == 3:
        if cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens goes with packed hidden (N, d); give lengths for (B, L, d)"
            )
        n_sequences, longest = hidden.shape[:2]
        if lengths is None:
            return torch.full((n_sequences,), longest, dtype=torch.int64, device=hidden.device)
        return _given(lengths, hidden, n_sequences)
    if (cu_seqlens is None) == (lengths is None):
        raise ValueError(
            "packed hidden (N, d) needs either lengths (B,) or cu_seqlens (B + 1,), and not both"
        )
    if cu_seqlens is None:
        given = torch.as_tensor(lengths)
        found = _given(given, hidden)
    else:
        given = cu_seqlens
        found = lengths_of_cu_seqlens(given.to(hidden.device))
    if not can_be_read(given):
        return found
    asked = os.environ.get("LARES_CHECK_VALUES") == "1"
    if max_length and not (asked or is_free_to_read(given)):
        return found
    check_lengths_given(found, max_length)
    if cu_seqlens is not None and int(cu_seqlens[0]) != 0:
        raise ValueError(
            f"cu_seqlens runs from {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}; "
            f"it must run from 0 to the {len(hidden)} rows of hidden"
        )
    return found


def _given(
    lengths: Tensor | Sequence[int], hidden: Tensor, n_sequences: int | None = None
) -> Tensor:
    """Return ``lengths`` as a vector of whole numbers on ``hidden``'s device, ``n_sequences`` of them
    if that is known."""
    if not (isinstance(lengths, Tensor) and lengths.device == hidden.device):
        lengths = torch.as_tensor(lengths, device=hidden.device)
    fits = lengths.dim() == 1 and is_whole(lengths)
    if fits:
        n = lengths.shape[0]
        fits = n > 0 if n_sequences is None else n == n_sequences
    if not fits:
        # Words of a number only here: a compiler would take the batch's size for a constant.
        wanted = "whole numbers" if n_sequences is None else f"{n_sequences} whole numbers"
        raise ValueError(f"lengths must hold {wanted}, one a sequence; got {described(lengths)}")
    return lengths
