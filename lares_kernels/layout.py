"""Where the tokens of a batch of sequences lie: packed rows, their sequences and positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Rows of ``S`` sequences stored one after the other, oldest token first.

    Attributes:
        lengths: (S,) int64, at least 1 each.
        starts: (S,) int64, first row of each sequence.
        max_length: longest sequence.
        sequence: (N,) int64, sequence of each row.
        position: (N,) int64, position of each row in its sequence, from 0.
        streams: (S,) int64, each sequence's random-number stream (sequence number and rollout).
        leading: (S,) int64, rows at the start of each sequence that are padding; None: none are.
        tokens: (S,) int64, rows at the start of each sequence that are not padding; None: all are.
    """

    lengths: Tensor
    starts: Tensor
    max_length: int
    sequence: Tensor
    position: Tensor
    streams: Tensor
    leading: Tensor | None = None
    tokens: Tensor | None = None

    @classmethod
    def from_lengths(
        cls,
        lengths: Tensor,
        streams: Tensor,
        leading: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Layout:
        """Layout of sequences of ``lengths`` (S,) with random-number ``streams`` (S,)."""
        lengths = lengths.to(torch.int64)
        starts = lengths.cumsum(0) - lengths
        sequence = torch.repeat_interleave(
            torch.arange(len(lengths), device=lengths.device), lengths
        )
        position = torch.arange(len(sequence), device=lengths.device) - starts[sequence]
        longest = int(lengths.max())
        return cls(lengths, starts, longest, sequence, position, streams, leading, tokens)

    @property
    def n_sequences(self) -> int:
        return len(self.lengths)

    @property
    def n_rows(self) -> int:
        return len(self.sequence)

    @property
    def last_rows(self) -> Tensor:
        """(S,) row of each sequence's newest token."""
        return self.starts + (self.lengths if self.tokens is None else self.tokens) - 1

    @cached_property
    def buckets(self) -> list[tuple[Layout, Tensor]]:
        """The sequences in groups of similar length (up to 4, 8, 16, ...): (layout, rows) of each.

        Attention runs on padded sequences; padding each group to its own longest keeps most of the
        work on real tokens.
        """
        groups = []
        shorter, width = 0, 4
        while shorter < self.max_length:
            chosen = (self.lengths > shorter) & (self.lengths <= width)
            if bool(chosen.any()):
                groups.append(self.select(chosen))
            shorter, width = width, 2 * width
        return groups

    @cached_property
    def row_streams(self) -> Tensor:
        """(N,) random-number stream of each row."""
        return self.streams[self.sequence]

    def select(self, chosen: Tensor) -> tuple[Layout, Tensor]:
        """The sequences where ``chosen`` (S,) bool holds: their layout, and their rows in this one."""
        rows = chosen[self.sequence].nonzero().squeeze(1)
        leading = None if self.leading is None else self.leading[chosen]
        tokens = None if self.tokens is None else self.tokens[chosen]
        lengths, streams = self.lengths[chosen], self.streams[chosen]
        return Layout.from_lengths(lengths, streams, leading, tokens), rows

    @cached_property
    def real(self) -> Tensor | None:
        """(N, 1) bool, whether a row is a token and not padding; None where all are."""
        if self.leading is None:
            return None
        return (self.position >= self.leading[self.sequence]).unsqueeze(1)

    def _places(self, width: int, left: bool) -> Tensor:
        """(N,) where rows lie in an array of (S, width) that is padded on the right, or ``left``."""
        place = self.sequence * width + self.position
        return place + (width - self.lengths)[self.sequence] if left else place

    def pad(self, rows: Tensor, width: int | None = None, left: bool = False) -> Tensor:
        """(N, ...) to (S, width, ...), zeros at padding; width defaults to max_length."""
        width = self.max_length if width is None else width
        padded = rows.new_zeros((self.n_sequences * width, *rows.shape[1:]))
        padded = padded.index_copy(0, self._places(width, left), rows)
        return padded.reshape(self.n_sequences, width, *rows.shape[1:])

    def unpad(self, padded: Tensor, left: bool = False) -> Tensor:
        """(S, width, ...) to (N, ...), leaving out padding."""
        return padded.flatten(0, 1)[self._places(padded.shape[1], left)]
