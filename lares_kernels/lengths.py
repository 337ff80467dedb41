"""Lengths of sequences: how packed ones come by them, and what they may be."""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.whole import described, is_whole


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
    """Lengths (B,) int64 of packed sequences from their offsets (B + 1,)."""
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2 or not is_whole(cu_seqlens):
        raise ValueError(
            "cu_seqlens must be a vector of at least two whole numbers, (B + 1,); "
            f"got {described(cu_seqlens)}"
        )
    return cu_seqlens.to(torch.int64).diff()
