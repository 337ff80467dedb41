"""What the GPU backends' tile plans have in common."""

from __future__ import annotations


def most_tiles(n_rows: int, n_sequences: int, longest: int, tile_rows: int) -> int:
    """Tiles that sequences of at most ``longest`` tokens, ``n_rows`` in all, can need.

    A tile that another follows holds more than ``tile_rows - longest`` rows, and two neighbours
    together more than ``tile_rows``.
    """
    by_fill = n_rows // (tile_rows - longest + 1) + 1
    by_pairs = 2 * (n_rows // tile_rows) + 2
    return min(n_sequences, by_fill, by_pairs)
