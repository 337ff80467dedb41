"""Batches of histories as encoder and op take them: checked once, and packed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lares.model.config import LaresConfig
from lares_kernels.common.dispatcher import can_be_read, check_when_run
from lares_kernels.common.whole import is_whole, whole_numbers
from lares_kernels.spec.layout import Layout


class PackedHistories:
    """Hold ``B`` histories in ``N`` rows, one after the other, oldest item first.

    Rows are the items alone; or whole windows, padding too, where a core mixes these or where a traced
    program's shapes must not follow from the lengths.

    Attributes:
        items: (N,) int64 rows of the catalogue, 0 at padding.
        layout: of the rows: starts, lengths and random-number stream of each history, position of each
            row.
        width: ``L`` of padded results, at least the longest history.
    """

    # No dataclass: Fabric would copy one at every step, to cast what floats in it.
    def __init__(self, items: Tensor, layout: Layout, width: int) -> None:
        self.items, self.layout, self.width = items, layout, width

    def __len__(self) -> int:
        return self.layout.n_sequences

    @property
    def lengths(self) -> Tensor:
        """Return the items of each history, (B,) int64."""
        return self.layout.lengths if self.layout.tokens is None else self.layout.tokens

    @property
    def padded(self) -> Tensor:
        """Return the items of each history, (B, width) int64, 0 at padding."""
        return self.layout.pad(self.items, self.width)

    @classmethod
    def from_padded(
        cls,
        config: LaresConfig,
        item_seq: Tensor,
        lengths: Tensor,
        sequence_ids: Tensor | None = None,
    ) -> PackedHistories:
        """Check and pack padded histories.

        Args:
            config: of the model.
            item_seq: (B, L) whole numbers, oldest first, padded on the right. Of longer histories the
                last ``max_length`` items are kept.
            lengths: (B,) whole numbers in ``1..L``.
            sequence_ids: (B,) numbers below 2^24 that address draws; None is ``0..B-1``.

        Raises:
            ValueError: ids or lengths do not fit; the message names value and place.
        """
        item_seq, lengths = _checked_item_ids(item_seq, lengths, config.n_items)
        item_seq, lengths = _keep_last_items(item_seq, lengths, config.max_length)
        if sequence_ids is None:
            sequence_ids = torch.arange(lengths.shape[0], device=item_seq.device)
        streams = whole_numbers("sequence_ids", sequence_ids, ((lengths.shape[0],),))
        streams = streams.to(torch.int64)
        width = config.max_length if config.mixes_window else item_seq.shape[1]
        if config.mixes_window or not can_be_read(lengths):
            windows = _fill_window(item_seq, lengths, width)
            return cls(windows.flatten(), Layout.of_windows(width, streams, tokens=lengths), width)
        layout = Layout.from_lengths(lengths, streams)
        return cls(layout.unpad(item_seq), layout, width)

    @classmethod
    def from_flat(
        cls, config: LaresConfig, items: Tensor, lengths: Tensor, streams: Tensor
    ) -> PackedHistories:
        """Return histories that are checked already, none longer than ``max_length``.

        Args:
            config: of the model.
            items: (N,) int64 rows of the catalogue, on the model's device.
            lengths: (B,) int64, on the CPU.
            streams: (B,) int64 below 2^24, that address draws, on the model's device.
        """
        size = len(items), int(lengths.max())
        layout = Layout.from_lengths(lengths.to(items.device), streams, size=size)
        return cls.from_layout(config, items, layout)

    @classmethod
    def from_layout(cls, config: LaresConfig, items: Tensor, layout: Layout) -> PackedHistories:
        """Return histories as :meth:`from_flat` does, whose ``layout`` of ``items`` is known."""
        width = config.max_length
        if not config.mixes_window:
            return cls(items, layout, layout.max_length)
        windows = Layout.of_windows(width, layout.streams, tokens=layout.lengths)
        return cls(layout.pad(items, width).flatten(), windows, width)

    @staticmethod
    def joined(parts: Sequence[PackedHistories], streams: Tensor) -> PackedHistories:
        """Return the histories of all ``parts``, one part after the other, that draw from ``streams``
        (B of all,)."""
        items = torch.cat([part.items for part in parts])
        lengths = torch.cat([part.lengths for part in parts])
        first, width = parts[0].layout, max(part.width for part in parts)
        if first.tokens is not None:
            layout = Layout.of_windows(first.max_length, streams, tokens=lengths)
        else:
            size = len(items), max(part.layout.max_length for part in parts)
            layout = Layout.from_lengths(lengths, streams, size=size)
        return PackedHistories(items, layout, width)

    def repeated(self, times: int, streams: Tensor) -> PackedHistories:
        """Return all histories ``times`` times over, that draw from ``streams`` (times B,)."""
        return self.joined([self] * times, streams)


def _checked_item_ids(item_seq: Tensor, lengths: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Return ids (B, L) and lengths (B,) as int64.

    Raises:
        ValueError: they do not describe real, non-empty histories.
    """
    if item_seq.dim() != 2 or not is_whole(item_seq):
        raise ValueError(
            f"item_seq must be (B, L) whole numbers; got shape {tuple(item_seq.shape)} "
            f"of {item_seq.dtype}"
        )
    if tuple(lengths.shape) != (item_seq.shape[0],) or not is_whole(lengths):
        raise ValueError(
            f"lengths must be ({len(item_seq)},) whole numbers, one a sequence; "
            f"got shape {tuple(lengths.shape)} of {lengths.dtype}"
        )
    if item_seq.shape[0] == 0:
        raise ValueError("item_seq holds no sequence")
    # First of all: narrow types wrap round in what follows, and unsigned ones cannot be compared.
    item_seq, lengths = item_seq.to(torch.int64), lengths.to(torch.int64)
    longest = item_seq.shape[1]
    bad = (lengths < 1) | (lengths > longest)
    real = torch.arange(longest, device=item_seq.device) < lengths[:, None]
    wrong = real & ((item_seq < 1) | (item_seq >= n_items))
    if not can_be_read(lengths):
        check_when_run(~bad.any(), "lengths must be in 1..L, the width of item_seq")
        check_when_run(
            ~wrong.any(),
            f"item ids run from 1 to {n_items - 1} (0 is padding)",
        )
        return item_seq, lengths
    if bool(bad.any()):
        where = int(bad.nonzero()[0])
        raise ValueError(
            f"sequence {where} has length {int(lengths[where])}; it must be in "
            f"1..{longest}, the width of item_seq"
        )
    if bool(wrong.any()):
        row, column = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"item id {int(item_seq[row, column])} in sequence {row}, position {column}: "
            f"ids run from 1 to {n_items - 1} (0 is padding)"
        )
    return item_seq, lengths


def _fill_window(item_seq: Tensor, lengths: Tensor, window: int) -> Tensor:
    """Return ids (B, L) with ``L <= window`` as (B, window), 0 past each length."""
    real = torch.arange(item_seq.shape[1], device=item_seq.device) < lengths[:, None]
    return functional.pad(item_seq * real, (0, window - item_seq.shape[1]))


def _keep_last_items(item_seq: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Drop all but the last ``longest`` items of every history (B, L)."""
    if item_seq.shape[1] <= longest:
        return item_seq, lengths
    dropped = (lengths - longest).clamp(min=0)
    columns = dropped[:, None] + torch.arange(longest, device=item_seq.device)
    kept = lengths.clamp(max=longest)
    kept_seq = item_seq.gather(1, columns.clamp(max=item_seq.shape[1] - 1))
    inside = torch.arange(longest, device=item_seq.device) < kept[:, None]
    return kept_seq * inside, kept
