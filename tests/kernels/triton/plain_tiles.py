"""The GPU backends' tile plan in plain Python, as their tests expect it."""

from __future__ import annotations

import random
from typing import NamedTuple

BLOCK = 128  # sequences that are cut on their own


class Row(NamedTuple):
    """What is known of a tile's row."""

    hidden_row: int
    state_row: int
    stream: int
    position: int
    first: int
    depth: int
    newest: int
    kept_row: int


def taken(depths: list[int]) -> list[int]:
    """Sequences in the order in which they are taken."""
    return sorted(range(len(depths)), key=lambda i: -depths[i])


def cut(lengths: list[int], depths: list[int], rows: int) -> list[list[int]]:
    """Sequences of every tile: first-fit in every block, the deepest and of those the longest first."""
    order = taken(depths)
    tiles: list[list[int]] = []
    for start in range(0, len(order), BLOCK):
        here: list[list[int]] = []
        block = sorted(order[start : start + BLOCK], key=lambda i: (-depths[i], -lengths[i]))
        for i in block:
            for tile in here:
                if sum(lengths[j] for j in tile) + lengths[i] <= rows:
                    tile.append(i)
                    break
            else:
                here.append([i])
        tiles += here
    return tiles


def rows_of_tiles(
    lengths: list[int],
    depths: list[int],
    rows: int,
    rollouts: int = 1,
    padded_length: int = 0,
    ids: list[int] | None = None,
) -> list[list[Row]]:
    """Rows of every tile, of ``rollouts`` runs of every sequence of ``lengths``."""
    sizes = [length for length in lengths for _ in range(rollouts)]
    before = [sum(lengths[:i]) for i in range(len(lengths))]
    kept, start = [0] * len(sizes), 0
    for i in taken(depths):
        kept[i], start = start, start + sizes[i]
    tiles = []
    for members in cut(sizes, depths, rows):
        tile: list[Row] = []
        for i in members:
            group, rollout, first = i // rollouts, i % rollouts, len(tile)
            hidden, state = group * padded_length, i * padded_length
            if not padded_length:
                hidden = before[group]
                state = rollouts * before[group] + rollout * sizes[i]
            stream = (group if ids is None else ids[group]) | rollout << 24
            for p in range(sizes[i]):
                newest = i if p == sizes[i] - 1 else -1
                tile.append(
                    Row(hidden + p, state + p, stream, p, first, depths[i], newest, kept[i] + p)
                )
        tiles.append(tile)
    return tiles


def lengths_of_mean(mean: float, longest: int, n: int, seed: int = 0) -> list[int]:
    """``n`` lengths in 1..longest, geometric but for the end, whose expectation is ``mean``."""
    low, high = 0.0, 1.0
    for _ in range(60):
        stays = (low + high) / 2
        weights = [stays**k for k in range(longest)]
        found = sum((k + 1) * w for k, w in enumerate(weights)) / sum(weights)
        low, high = (stays, high) if found < mean else (low, stays)
    return random.Random(seed).choices(range(1, longest + 1), weights, k=n)
