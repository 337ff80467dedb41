"""Lay out a batch of sequences as packed rows, with their sequences and positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lares_kernels.common.kept_property import kept_property


@dataclass(frozen=True)
class Layout:
    """Describe rows of ``S`` sequences stored one after the other, oldest token first.

    Attributes:
        lengths: (S,) int64, at least 1 each.
        starts: (S,) int64, first row of each sequence.
        max_length: longest sequence.
        sequence: (N,) int64, sequence of each row.
        position: (N,) int64, position of each row in its sequence, from 0.
        streams: (S,) int64, each sequence's random-number stream (sequence number and rollout).
        leading: (S,) int64, rows at the start of each sequence that are padding; None: none are.
        tokens: (S,) int64, rows at the start of each sequence that are not padding; None: all are.
        one_group: attention takes all sequences together, not in groups of similar length.
    """

    lengths: Tensor
    starts: Tensor
    max_length: int
    sequence: Tensor
    position: Tensor
    streams: Tensor
    leading: Tensor | None = None
    tokens: Tensor | None = None
    one_group: bool = False

    @classmethod
    def from_lengths(
        cls,
        lengths: Tensor,
        streams: Tensor,
        leading: Tensor | None = None,
        tokens: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Layout:
        """Return the layout of sequences of ``lengths`` (S,) with random-number ``streams`` (S,).

        ``size`` is the sum and the greatest of the lengths, where they are known: a GPU need not be
        waited for.
        """
        lengths = lengths.to(torch.int64)
        starts = lengths.cumsum(0) - lengths
        n_rows, longest = (None, int(lengths.max())) if size is None else size
        number = torch.arange(len(lengths), device=lengths.device)
        sequence = torch.repeat_interleave(number, lengths, output_size=n_rows)
        position = torch.arange(len(sequence), device=lengths.device) - starts[sequence]
        return cls(lengths, starts, longest, sequence, position, streams, leading, tokens)

    @classmethod
    def of_windows(
        cls,
        width: int,
        streams: Tensor,
        leading: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Layout:
        """Return the layout of whole windows of ``width`` rows; no shape depends on a tensor's
        values."""
        lengths = torch.full_like(streams, width)
        number = torch.arange(streams.shape[0], device=streams.device)
        position = torch.arange(width, device=streams.device).repeat(streams.shape[0])
        sequence = number.repeat_interleave(width)
        starts = number * width
        return cls(lengths, starts, width, sequence, position, streams, leading, tokens, True)

    @classmethod
    def of_rows(cls, n_rows: int, lengths: Tensor, streams: Tensor) -> Layout:
        """Return the layout of ``n_rows`` packed rows of ``lengths`` (S,) int64, which sum up to
        that.

        No shape depends on a tensor's values: ``max_length`` is ``n_rows``.
        """
        ends = lengths.cumsum(0)
        rows = torch.arange(n_rows, device=lengths.device)
        sequence = torch.searchsorted(ends, rows, right=True)
        starts = ends - lengths
        position = rows - starts[sequence]
        return cls(lengths, starts, n_rows, sequence, position, streams, one_group=True)

    @property
    def n_sequences(self) -> int:
        return self.lengths.shape[0]  # len() would make a plain number of a symbol

    @property
    def n_rows(self) -> int:
        return self.sequence.shape[0]

    @property
    def last_rows(self) -> Tensor:
        """Return the row of each sequence's newest token, (S,)."""
        return self.starts + (self.lengths if self.tokens is None else self.tokens) - 1

    @kept_property
    def buckets(self) -> list[tuple[Layout, Tensor]]:
        """Group the sequences by similar length (up to 4, 8, 16, ...): (layout, rows) of each.

        Attention runs on padded sequences; padding each group to its own longest keeps most of the
        work on real tokens.
        """
        if self.one_group:
            return [(self, torch.arange(self.n_rows, device=self.lengths.device))]
        groups = []
        shorter, width = 0, 4
        while shorter < self.max_length:
            chosen = (self.lengths > shorter) & (self.lengths <= width)
            if bool(chosen.any()):
                groups.append(self.select(chosen))
            shorter, width = width, 2 * width
        return groups

    @kept_property
    def row_streams(self) -> Tensor:
        """Return the random-number stream of each row, (N,)."""
        return self.streams[self.sequence]

    def select(self, chosen: Tensor) -> tuple[Layout, Tensor]:
        """Return the layout of the sequences where ``chosen`` (S,) holds, and their rows here."""
        rows = chosen[self.sequence].nonzero().squeeze(1)
        leading = None if self.leading is None else self.leading[chosen]
        tokens = None if self.tokens is None else self.tokens[chosen]
        lengths, streams = self.lengths[chosen], self.streams[chosen]
        return Layout.from_lengths(lengths, streams, leading, tokens), rows

    @kept_property
    def real(self) -> Tensor | None:
        """Mark rows that are tokens and not padding, (N, 1) bool; None where all are."""
        if self.leading is None:
            return None
        return (self.position >= self.leading[self.sequence]).unsqueeze(1)

    @kept_property
    def after_tokens(self) -> Tensor | None:
        """Mark rows of padding that follows the tokens, (N, 1) bool; None where none does."""
        if self.tokens is None:
            return None
        return (self.position >= self.tokens[self.sequence]).unsqueeze(1)

    def _places(self, width: int, left: bool) -> Tensor:
        """Return where rows lie (N,) in an array of (S, width), padded on the right or the
        ``left``."""
        position = self.position
        if left:  # rows of padding follow the tokens here, and stand before them there
            moved = width - (self.lengths if self.tokens is None else self.tokens)
            position = (position + moved[self.sequence]) % width
        return self.sequence * width + position

    def pad(self, rows: Tensor, width: int | None = None, left: bool = False) -> Tensor:
        """Pad (N, ...) to (S, width, ...), with zeros at padding; width defaults to max_length."""
        width = self.max_length if width is None else width
        padded = rows.new_zeros((self.n_sequences * width, *rows.shape[1:]))
        padded = padded.index_copy(0, self._places(width, left), rows)
        return padded.reshape(self.n_sequences, width, *rows.shape[1:])

    def unpad(self, padded: Tensor, left: bool = False) -> Tensor:
        """Unpad (S, width, ...) to (N, ...), leaving out padding."""
        return padded.flatten(0, 1)[self._places(padded.shape[1], left)]
